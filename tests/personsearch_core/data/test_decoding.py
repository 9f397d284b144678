from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from personsearch_core.boxes import place_image
from personsearch_core.data.decoding import PADDING_COLOUR, read_image, read_scene, render
from personsearch_core.errors import PersonSearchError
from tests.personsearch_core.scene_files import write_scenes


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), (200, 10, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (3, 20, 40)


@pytest.mark.parametrize("name, mode", [("a.bmp", "RGB"), ("a.tiff", "RGB"), ("a.png", "L")])
def test_odd_formats_decode_to_rgb(tmp_path: Path, name: str, mode: str) -> None:
    Image.new(mode, (7, 5), 77 if mode == "L" else (1, 2, 3)).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (3, 5, 7) and image.dtype == torch.uint8
    assert image[:, 0, 0].tolist() == ([77] * 3 if mode == "L" else [1, 2, 3])


def test_the_fallback_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (7, 5)).save(tmp_path / "a.bmp")
    with caplog.at_level(logging.WARNING):
        read_image(tmp_path / "a.bmp")
    assert "decoded by Pillow" in caplog.text


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PersonSearchError, match=r"nowhere\.jpg does not exist"):
        read_image(tmp_path / "nowhere.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(PersonSearchError, match=r"broken\.jpg cannot be decoded"):
        read_image(tmp_path / "broken.jpg")


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    (scene,) = write_scenes(tmp_path, 1)
    Image.new("RGB", (64, 48)).save(scene.path)
    with pytest.raises(PersonSearchError, match="is 64x48 pixels, but scene a0 says 120x80"):
        read_scene(scene)


def test_letterbox_pads_right_or_below(tmp_path: Path) -> None:
    image = torch.full((3, 40, 80), 200, dtype=torch.uint8)
    placed = render(image, place_image(80, 40, 64, 64))
    assert (placed[:, :32] == 200).all()
    assert placed[:, 32:].flatten(1).unique(dim=1).squeeze(1).tolist() == list(PADDING_COLOUR)


def test_mirroring_flips_the_content_not_the_padding() -> None:
    ramp = torch.from_numpy(np.tile(np.arange(64, dtype=np.uint8), (3, 32, 1)))
    placed = render(ramp, place_image(64, 32, 96, 32, "letterbox", mirrored=True))
    assert placed[0, 0, :64].tolist() == list(range(63, -1, -1))
