from __future__ import annotations

from datetime import datetime

import pytest

from flows.search.camera_and_time import camera_of, time_in_name, time_taken


@pytest.mark.parametrize(
    ("image", "camera"),
    [
        ("c1s1_000151.jpg", "c1"),
        ("frames/c3s2_000151.jpg", "c3"),
        ("0001_c6s1_001051_00.jpg", "c6"),
        ("cam2_17.png", "cam2"),
        ("x/camera-12.front.png", "camera-12"),
        ("entrance/2024-05-01/0001.jpg", "entrance"),
        ("PETS09-S2L1-b/img1/000001.jpg", "PETS09-S2L1-b"),
        ("../north/a.jpg", "north"),
        ("train/images/a.jpg", None),
        ("second.jpg", None),
        ("scam2.jpg", None),
    ],
)
def test_the_camera_is_in_the_name_or_the_nearest_telling_folder(image: str, camera: str | None) -> None:
    assert camera_of(image) == camera


def test_a_video_is_its_own_camera_unless_a_folder_says_more() -> None:
    assert camera_of("gate.mp4", video=True) == "gate"
    assert camera_of("20240501_120000_gate.mp4", video=True) == "gate"
    assert camera_of("yard-2024-05-01T12-00-03.250.mkv", video=True) == "yard"
    assert camera_of("20240501120000.mp4", video=True) == "20240501120000"
    assert camera_of("north/gate.mp4", video=True) == "north"


@pytest.mark.parametrize(
    ("image", "time"),
    [
        ("IMG_20240501_120003.jpg", datetime(2024, 5, 1, 12, 0, 3)),
        ("cam1-2024-05-01T12-00-03.250.png", datetime(2024, 5, 1, 12, 0, 3, 250_000)),
        ("20240501120003.jpg", datetime(2024, 5, 1, 12, 0, 3)),
        ("2024.05.01 12.00.03.jpg", datetime(2024, 5, 1, 12, 0, 3)),
        ("20241501_120003.jpg", None),
        ("c1s1_000151.jpg", None),
        ("000001.jpg", None),
    ],
)
def test_times_in_names(image: str, time: datetime | None) -> None:
    assert time_in_name(image) == time


def test_nonsense_has_no_time() -> None:
    assert time_taken(b"not an image") is None
