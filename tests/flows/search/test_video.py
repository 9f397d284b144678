from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.search import build_index, open_index
from flows.search.layout import Settings
from flows.search.model import GivenModel
from flows.search.tracks import link_frames
from flows.search.video import BadVideo, expected_frames, frame_at, sampled_frames
from tests.flows.search.conftest import SETTINGS
from tests.flows.search.videos import encode, pets_frames


def grey(level: int) -> np.ndarray:
    """A frame that says its number by its brightness, and which way is up by a white corner."""
    pixels = np.full((48, 64, 3), level, np.uint8)
    pixels[:12, :16] = 255
    return pixels


LEVELS = [10 + 8 * number for number in range(25)]


def levels(frames: list[np.ndarray]) -> list[int]:
    """The numbers that frames say, from their middle."""
    return [round((float(frame[0, 20:28, 28:36].float().mean()) - 10) / 8) for frame in frames]


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("video") / "steady.mp4", [grey(level) for level in LEVELS])


def test_every_nth_frame_with_its_time_code(steady: Path) -> None:
    frames = list(sampled_frames(steady, Settings(every=6)))
    assert [frame.number for frame in frames] == [0, 6, 12, 18, 24]
    assert levels([frame.pixels for frame in frames]) == [0, 6, 12, 18, 24]
    assert [frame.time_code for frame in frames] == pytest.approx([0, 0.24, 0.48, 0.72, 0.96])
    assert [frame.number for frame in sampled_frames(steady, Settings(every=6), first=7)] == [12, 18, 24]
    assert expected_frames(steady, Settings(every=6)) == 4


def test_frames_per_second_follow_the_clock_where_the_frame_rate_varies(tmp_path: Path) -> None:
    # Ten frames in the first second, then one per 0.7 s.
    seconds = [*np.arange(10) / 10, *(1.0 + 0.7 * np.arange(8))]
    path = encode(tmp_path / "varying.mkv", [grey(level) for level in LEVELS[:18]], seconds)
    frames = list(sampled_frames(path, Settings(per_second=2)))
    assert [frame.time_code for frame in frames] == pytest.approx(
        [0.0, 0.5, 1.0, 1.7, 2.4, 3.1, 3.8, 4.5, 5.2, 5.9]
    )
    assert levels([frame.pixels for frame in frames]) == [0, 5, 10, 11, 12, 13, 14, 15, 16, 17]
    once = list(sampled_frames(path, Settings()))
    assert [frame.time_code for frame in once] == pytest.approx([0.0, 1.0, 2.4, 3.1, 4.5, 5.2])


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))]
)
def test_rotated_videos_are_upright(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    path = encode(tmp_path / "turned.mp4", [grey(40)] * 3, rotation=rotation)
    (frame,) = sampled_frames(path, Settings())
    assert tuple(frame.pixels.shape[1:]) == ((64, 48) if rotation in (90, -90) else (48, 64))
    bright = frame.pixels[0].float()
    corners = {(y, x): float(bright[y, x]) for y in (0, -1) for x in (0, -1)}
    assert max(corners, key=lambda at: corners[at]) == corner


def test_a_frame_is_found_again_by_its_time_code(steady: Path) -> None:
    for number in (0, 7, 24):
        assert levels([frame_at(steady, number / 25)]) == [number]
    with pytest.raises(BadVideo, match="no frame at 9"):
        frame_at(steady, 9.0)


def test_a_damaged_video_counts_as_far_as_it_goes(tmp_path: Path, model: GivenModel) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    whole = encode(tmp_path / "cam1.mkv", frames)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    (tmp_path / "none.mp4").write_bytes(content[1000:3000])
    outcome = build_index(
        tmp_path / "index", [tmp_path], model, settings=SETTINGS.model_copy(update={"every": 5})
    )
    assert 3 <= outcome.images <= 8 and outcome.skipped == 1
    assert any("none.mp4" in fault for fault in outcome.faults)


def test_a_video_of_real_frames_is_indexed_with_camera_times_and_tracks(
    tmp_path: Path, model: GivenModel, shared: Path
) -> None:
    path = tmp_path / "20240501_120000_gate.mp4"
    encode(path, pets_frames(shared, 8), [0.4 * number for number in range(8)])
    build_index(tmp_path / "index", [path], model, settings=SETTINGS.model_copy(update={"per_second": 2.5}))
    index = open_index(tmp_path / "index")
    table = index.table
    assert index.cameras == ("gate",)
    assert sorted(set(table["time_code"].to_pylist())) == pytest.approx([0.4 * n for n in range(8)])
    assert {str(time)[11:19] for time in table["time"].to_pylist()} == {"12:00:00", "12:00:01", "12:00:02"}
    assert table["track"].null_count == 0
    one_each = index.search(shots=[0], top=99).matches
    every = index.search(shots=[0], top=99, every_frame=True).matches
    assert len(every) == len(index) and len({match.track for match in one_each}) == len(one_each) < len(every)
    best: dict[int | None, float] = {}
    for match in every:
        best.setdefault(match.track, match.similarity)
    assert [match.similarity for match in one_each] == list(best.values())
    late = index.search(shots=[0], after="0:00:02", before=2.5, every_frame=True, top=99).matches
    assert sorted({match.time_code for match in late if match.time_code}) == pytest.approx([2.0, 2.4])
    assert index.picture(late[0].person_row, scene=True).size == (768, 576)


def test_people_are_linked_by_place_and_appearance() -> None:
    frames = np.array([0, 0, 1, 1, 2, 2], np.int64)
    left, right, far = (0, 0, 10, 20), (50, 0, 60, 20), (200, 0, 210, 20)
    boxes = np.array([left, right, right, (2, 0, 12, 20), left, far], np.float32)
    a, b = np.array([1, 0], np.float16), np.array([0, 1], np.float16)
    tracks = link_frames(frames, boxes, np.stack([a, b, b, a, b, a]))
    assert tracks.tolist() == [0, 1, 1, 0, 2, 3], "neither another look nor another place continues a track"
