"""The one way in for pixels: every image is decoded to 8-bit RGB as a viewer shows it."""

from __future__ import annotations

import io
import logging
import stat
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms.v2 import functional as F

from personsearch_core.boxes import Placement
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError

logger = logging.getLogger(__name__)

PADDING_COLOUR = (124, 116, 104)
"""ImageNet's mean colour: zero after the network's normalisation."""

_ORIENTATION = 0x0112
_INVERSE = {6: 8, 8: 6}
"""Orientations that undo each other; all others undo themselves."""
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


def read_image(
    source: str | Path | bytes, *, apply_exif: bool = True, max_pixels: int | None = None
) -> Tensor:
    """Decode an image to RGB, as a viewer shows it.

    Of 16 bits per channel the upper 8 are kept; grey and palette images become RGB; transparency is dropped.

    Parameters
    ----------
    source
        A file, or the bytes of one: any format that Pillow reads.
    apply_exif
        Whether to turn the image as its EXIF orientation says.
    max_pixels
        Refuse an image whose header says more, before anything is decoded.

    Returns
    -------
    Tensor
        uint8 (3, H, W).

    Raises
    ------
    PersonSearchError
        If the file is missing, damaged, too large or not an image, or if its pixels have no standard range
        (floats).

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     Image.new("L", (4, 3), 7).save(file.name)
    ...     read_image(file.name).shape
    torch.Size([3, 3, 4])
    """
    with open_image(source) as image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            size = f"{image.width}x{image.height}"
            raise PersonSearchError(f"{_name(source)} is {size}, more than {max_pixels:,} pixels")
        turn = _turn(image, apply_exif)
        pixels = _quickly(image, source)
        if pixels is None:
            pixels = _by_pillow(image)
    return turned(pixels, turn).contiguous()


@contextmanager
def open_image(source: str | Path | bytes) -> Iterator[Image.Image]:
    """An image, its header read; what fails until it is closed is a PersonSearchError that names it."""
    name = _name(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Of a path, Pillow would map pixels that are not compressed into memory, and mistake the sides of
            # a turned TIFF.
            with _opened(source, name) as file, Image.open(file) as image:
                yield image
    except FileNotFoundError as error:
        raise PersonSearchError(f"{name} does not exist") from error
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        if isinstance(error, PersonSearchError):
            raise
        why = "it is not an image" if isinstance(error, UnidentifiedImageError) else error
        raise PersonSearchError(f"{name} cannot be decoded: {why}") from error


def _name(source: str | Path | bytes) -> str:
    return "the image" if isinstance(source, bytes) else f"image {source}"


ImageSource = str | Path | bytes | Image.Image | Tensor
"""An image as Python has it: a file, the bytes of one, a PIL image, or uint8 pixels (3, H, W)."""


def as_pixels(source: ImageSource) -> Tensor:
    """An image from anywhere as uint8 (3, H, W); files and bytes as `read_image` decodes them.

    Raises PersonSearchError for what `read_image` refuses, and for tensors of another type or shape.
    """
    if isinstance(source, Tensor):
        if source.dtype != torch.uint8 or source.dim() != 3 or source.shape[0] != 3:
            raise PersonSearchError(
                f"an image is uint8 of shape (3, H, W); got {source.dtype} of shape {tuple(source.shape)}"
            )
        return source
    if isinstance(source, Image.Image):
        return turned(_by_pillow(source), _turn(source, apply_exif=True)).contiguous()
    return read_image(source)


def _opened(source: str | Path | bytes, name: str) -> AbstractContextManager[BinaryIO]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not stat.S_ISREG(Path(source).stat().st_mode):
        raise PersonSearchError(f"{name} is not a regular file")
    return Path(source).open("rb")


def orientation(image: Image.Image) -> int:
    """1 to 8; 1 if missing or invalid. Of a PNG, EXIF after the pixels is not read."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn(image: Image.Image, apply_exif: bool) -> int:
    """The orientation by which decoded pixels are still to be turned: Pillow turns TIFFs itself."""
    turn = orientation(image)
    if image.format == "TIFF":
        return 1 if apply_exif else _INVERSE.get(turn, turn)
    return turn if apply_exif else 1


def _quickly(image: Image.Image, source: str | Path | bytes) -> Tensor | None:
    """Decode a JPEG with torchvision, as stored; None if only Pillow can (CMYK, or torchvision fails).

    PNG is left to Pillow: one damaged byte of its pixels crashes the process in torchvision's decoder.
    """
    if image.format != "JPEG" or image.mode == "CMYK":
        return None
    if isinstance(source, bytes):
        encoded = torch.frombuffer(bytearray(source), dtype=torch.uint8)
    else:
        encoded = read_file(str(source))
    try:
        pixels: Tensor = decode_image(encoded, mode=ImageReadMode.RGB)
    except RuntimeError as error:
        logger.warning(
            "%s is decoded by Pillow because torchvision failed: %s",
            _name(source),
            str(error).splitlines()[0],
        )
        return None
    return pixels


def _by_pillow(image: Image.Image) -> Tensor:
    if image.mode in _DEEP_MODES:
        values = np.asarray(image)
        if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
            raise ValueError("its pixels have no standard range: convert it to 8 or 16 bits per channel")
        image = Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def turned(pixels: Tensor, orientation: int) -> Tensor:
    """Turn stored pixels (3, H, W) as their EXIF orientation says (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:  # stored rows are displayed as columns
        pixels = pixels.transpose(1, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels.flip(1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels.flip(2)
    return pixels


def read_scene(scene: Scene) -> Tensor:
    """Decode a scene's image and check its size, which its boxes refer to; see `read_image`."""
    image = read_image(scene.path, apply_exif=scene.apply_exif)
    check_size(scene, image.shape[-1], image.shape[-2])
    return image


def check_size(scene: Scene, width: int, height: int) -> None:
    """Raise PersonSearchError unless a scene's image has the size in pixels that its boxes refer to."""
    if (width, height) != (scene.width, scene.height):
        raise PersonSearchError(
            f"image {scene.path} is {width}x{height} pixels, but scene {scene.image_id} says "
            f"{scene.width}x{scene.height}: ingest the dataset again"
        )


def render(image: Tensor, placement: Placement, out: Tensor | None = None) -> Tensor:
    """Resize the placement's source region onto its target and pad the rest: uint8 (3, H, W).

    Bilinear with antialiasing, because scenes shrink a lot (1920 to 640 pixels).
    """
    x1, y1, x2, y2 = placement.source
    u1, v1, u2, v2 = placement.target
    region = image[:, y1:y2, x1:x2]
    if region.shape[-2:] != (v2 - v1, u2 - u1):
        region = F.resize_image(region, [v2 - v1, u2 - u1], antialias=True)
    return write_region(region, placement, out)


def write_region(region: Tensor, placement: Placement, out: Tensor | None = None) -> Tensor:
    """Put a region (3, h, w) that has its target's size on the network's input and pad the rest."""
    u1, v1, u2, v2 = placement.target
    if placement.mirrored:
        region = region.flip(-1)
    if out is None:
        out = region.new_empty((3, placement.input_height, placement.input_width))
    if (u1, v1, u2, v2) != (0, 0, placement.input_width, placement.input_height):
        for channel, value in zip(out, PADDING_COLOUR, strict=True):
            channel.fill_(value)
    out[:, v1:v2, u1:u2] = region
    return out
