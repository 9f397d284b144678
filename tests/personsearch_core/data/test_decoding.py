from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from data_catalog.images import Unreadable, as_rgb, open_image, read_header
from personsearch_core.boxes import place_image
from personsearch_core.data.decoding import PADDING_COLOUR, as_pixels, read_image, read_scene, render
from personsearch_core.errors import PersonSearchError
from tests.personsearch_core.scene_files import write_scenes


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    """Four quarters of different brightness, so that no turn of it equals another."""
    image = Image.new(mode, size)
    for at, value in enumerate((20, 90, 160, 230)):
        colour = (value, 255 - value, value // 2) if mode == "RGB" else value
        corner = (at % 2 * size[0] // 2, at // 2 * size[1] // 2)
        image.paste(colour, (*corner, corner[0] + size[0] // 2, corner[1] + size[1] // 2))
    return image


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_seen_as_its_exif_orientation_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    """Held to Pillow's own reading of the tag, and equal to what the catalog draws and hashes."""
    path = tmp_path / f"turned.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    picture().save(path, exif=exif(orientation), **lossless)
    stored = np.asarray(picture()).astype(int)
    if suffix == "jpg":
        with Image.open(path) as opened:
            stored = np.asarray(opened).astype(int)
    tagged = Image.fromarray(stored.astype(np.uint8))
    tagged.getexif()[0x0112] = orientation
    seen = np.asarray(ImageOps.exif_transpose(tagged)).astype(int)
    assert np.abs(read_image(path).permute(1, 2, 0).numpy() - seen).max() <= 3  # two JPEG decoders
    assert np.abs(read_image(path, apply_exif=False).permute(1, 2, 0).numpy() - stored).max() <= 3
    with open_image(path) as opened:
        assert (np.asarray(as_rgb(opened)) == seen).all()
    with open_image(path) as opened:
        assert (np.asarray(as_rgb(opened, "ignore")) == stored).all()
    header = read_header(path)
    assert header.size() == seen.shape[1::-1] and header.size("ignore") == stored.shape[1::-1]
    assert header.decoding() == (None if orientation == 1 else f"orientation {orientation}")


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_is_nonsense_turns_nothing(tmp_path: Path, value: int) -> None:
    picture().save(tmp_path / "a.png", exif=exif(value))
    assert read_image(tmp_path / "a.png").shape == (3, 24, 40)
    assert read_header(tmp_path / "a.png").decoding() is None


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_upper_eight_of_sixteen_bits_are_kept(tmp_path: Path, suffix: str) -> None:
    grey = np.asarray(picture("L")).astype(np.uint16)
    Image.fromarray(grey * 256 + 37).save(tmp_path / f"deep.{suffix}")
    image = read_image(tmp_path / f"deep.{suffix}")
    assert image.dtype == torch.uint8 and (image.numpy() == grey).all()
    assert read_header(tmp_path / f"deep.{suffix}").decoding() == "16 bits"
    with open_image(tmp_path / f"deep.{suffix}") as opened:
        assert (np.asarray(as_rgb(opened))[..., 0] == grey).all()


def test_a_sixteen_bit_picture_equals_the_eight_bit_one(shared: Path) -> None:
    case = shared / "cases" / "png16"
    assert torch.equal(read_image(case / "12bit_in_16.png"), read_image(case / "8bit.png"))
    assert read_header(case / "12bit_in_16.png").decoding() == "16 bits"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp"])
def test_every_mode_becomes_eight_bit_rgb_in_both_readers(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    try:
        picture().convert(mode).save(path)
    except (OSError, KeyError):
        pytest.skip(f"no {suffix} holds {mode}")
    image = read_image(path)
    assert image.dtype == torch.uint8 and image.shape == (3, 24, 40)
    with open_image(path) as opened:
        assert np.abs(np.asarray(as_rgb(opened)).astype(int) - image.permute(1, 2, 0).numpy()).max() <= 3


def test_pixels_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(PersonSearchError, match=r"a\.tif cannot be decoded: its pixels have no"):
        read_image(tmp_path / "a.tif")
    with pytest.raises(Unreadable, match="no standard range"), open_image(tmp_path / "a.tif") as opened:
        as_rgb(opened)
    with pytest.raises(Unreadable, match="no standard range"):
        read_header(tmp_path / "a.tif", decode=True)  # told by the check, not by the training


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PersonSearchError, match="is not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(Unreadable, match="not a regular file"):
        read_header(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("name, mode", [("a.bmp", "RGB"), ("a.tiff", "RGB"), ("a.png", "L")])
def test_odd_formats_decode_to_rgb(tmp_path: Path, name: str, mode: str) -> None:
    Image.new(mode, (7, 5), 77 if mode == "L" else (1, 2, 3)).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (3, 5, 7) and image.dtype == torch.uint8
    assert image[:, 0, 0].tolist() == ([77] * 3 if mode == "L" else [1, 2, 3])


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PersonSearchError, match=r"nowhere\.jpg does not exist"):
        read_image(tmp_path / "nowhere.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(PersonSearchError, match=r"broken\.jpg cannot be decoded"):
        read_image(tmp_path / "broken.jpg")


@pytest.mark.parametrize("mode", ["L", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_grey_tiff_that_is_not_compressed(tmp_path: Path, mode: str, orientation: int) -> None:
    """Pillow maps its pixels into memory when it opens a path, and takes its sides for each other then."""
    grey = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9) * 4
    deep = grey if mode == "L" else grey.astype(np.uint16) << 8
    Image.fromarray(deep).save(tmp_path / "a.tif", exif=exif(orientation))
    tagged = Image.fromarray(grey)
    tagged.getexif()[0x0112] = orientation
    seen = np.asarray(ImageOps.exif_transpose(tagged).convert("RGB"))
    assert (read_image(tmp_path / "a.tif").permute(1, 2, 0).numpy() == seen).all()
    assert (read_image(tmp_path / "a.tif", apply_exif=False)[0].numpy() == grey).all()
    with open_image(tmp_path / "a.tif") as opened:
        assert (np.asarray(as_rgb(opened)) == seen).all()
    assert read_header(tmp_path / "a.tif", decode=True).size() == seen.shape[1::-1]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_no_damage_ends_the_process(tmp_path: Path, suffix: str) -> None:
    """torchvision's PNG decoder does, for one wrong byte among the pixels. Both readers agree on what is
    damaged.
    """
    image = picture().quantize(16) if suffix == "gif" else picture()
    image.save(tmp_path / f"good.{suffix}")
    good = (tmp_path / f"good.{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    cut = [good[:at] for at in (0, 3, 20, len(good) // 2, len(good) - 3)]
    wrong = []
    for at in rng.integers(len(good), size=40).tolist():
        wrong.append(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
    path = tmp_path / f"bad.{suffix}"
    for damaged in (*cut, *wrong):
        path.write_bytes(damaged)
        try:
            read_header(path, decode=True)
        except Unreadable:
            with pytest.raises(PersonSearchError, match=f"bad.{suffix} cannot be decoded"):
                read_image(path)
        else:
            assert read_image(path).dtype == torch.uint8


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


def test_images_come_from_anywhere(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg", "a.tif"):
        path = tmp_path / name
        Image.fromarray(pixels).save(path, exif=exif)
        expected = read_image(path)
        assert expected.shape == (3, 40, 30)
        assert torch.equal(read_image(path.read_bytes()), expected)
        assert torch.equal(as_pixels(expected), expected)
        with Image.open(path) as image:
            difference = as_pixels(image).int() - expected.int()
        assert difference.abs().max() <= (2 if name == "a.jpg" else 0)  # two JPEG decoders
    with pytest.raises(PersonSearchError, match="the image cannot be decoded: it is not an image"):
        read_image(b"a text")
    with pytest.raises(PersonSearchError, match="is 40x30, more than 1,000 pixels"):
        read_image(tmp_path / "a.png", max_pixels=1000)
    with pytest.raises(PersonSearchError, match=r"got torch.float32 of shape \(3, 4, 4\)"):
        as_pixels(torch.zeros(3, 4, 4))
