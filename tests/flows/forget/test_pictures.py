"""A page's picture shows a person as a crop, or in a scene where the person is not painted over."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_catalog.images import ImageFile
from flows.forget.pictures import Pictures
from flows.report.pictures import CROP_SIZE, SCENE_SIZE, crop_people, read_picture
from personsearch_core.drawing import as_data_uri, fitted

ANNA, BO = (40.0, 50.0, 80.0, 150.0), (120.0, 40.0, 165.0, 150.0)


@pytest.fixture
def file(tmp_path: Path) -> ImageFile:
    """A street at dusk, with two people of coarse clothes."""
    rng = np.random.default_rng(0)
    pixels = np.full((200, 300, 3), 90, np.uint8) + rng.integers(0, 20, (200, 300, 3), np.uint8)
    for x1, y1, x2, y2 in (ANNA, BO):
        height, width = int(y2 - y1), int(x2 - x1)
        cloth = rng.integers(0, 255, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = np.kron(cloth, np.ones((10, 10, 1), np.uint8))[
            :height, :width
        ]
    Image.fromarray(pixels).save(tmp_path / "street.png")
    return ImageFile(tmp_path / "street.png")


def page(*pictures: Image.Image) -> bytes:
    return "".join(f'<img src="{as_data_uri(each)}">' for each in pictures).encode()


def test_crops_and_scenes(file: ImageFile) -> None:
    of_anna = Pictures({file: [ANNA]})
    crops = crop_people({file: [ANNA, BO]}, {})
    scene = fitted(read_picture(file), SCENE_SIZE)
    assert of_anna.on_page(page(crops[file, ANNA], crops[file, BO], scene)) == 2
    smaller = crops[file, ANNA].resize((CROP_SIZE[0] // 4, CROP_SIZE[1] // 4 + 12))
    assert of_anna.on_page(page(smaller, scene.resize((150, 100)))) == 2


def test_what_is_painted_over_is_not_shown(file: ImageFile) -> None:
    hidden = {file: [ANNA]}
    crops = crop_people({file: [ANNA, BO]}, hidden)
    scene = fitted(read_picture(file, hidden[file]), SCENE_SIZE)
    assert Pictures({file: [ANNA]}).on_page(page(crops[file, ANNA], scene)) == 0
    assert Pictures({file: [BO]}).on_page(page(crops[file, BO], scene)) == 2


def test_no_picture_stays_in_memory(file: ImageFile) -> None:
    """A person may be on thousands of images of several MB each."""
    found = Pictures({file: [ANNA, BO]})
    gc.collect()
    assert not [
        each for each in gc.get_objects() if issubclass(type(each), Image.Image) and each.width >= 300
    ]
    assert found.on_page(page(Image.open(file.path))) == 1


def test_a_file_that_is_gone_is_counted(tmp_path: Path) -> None:
    found = Pictures({ImageFile(tmp_path / "gone.png"): [ANNA]})
    assert found.unreadable == 1 and found.on_page(page(Image.new("RGB", (9, 9)))) == 0
