"""Image files: what their headers say, and whether all of them decodes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_catalog.errors import CatalogError

Exif = Literal["apply", "ignore"]
"""Whether an image is turned as its EXIF orientation says, as viewers show it, or taken as it is stored."""

ORIENTATION = 0x0112
_TURNED = range(5, 9)
"""Orientations that swap width and height."""
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INVERSE = {6: 8, 8: 6}
"""Orientations that undo each other; every other one undoes itself."""
_DEPTHS = {"I;16": 16, "I;16B": 16, "I;16L": 16, "I;16N": 16, "I": 16, "F": 32}
"""Bits per channel of Pillow's modes that hold more than 8; PNG of 16 bits per channel is opened as I."""


class Unreadable(ValueError):
    """The file is there and is not an image that can be read."""


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of its pixels: the size as stored, the EXIF orientation, bits per channel."""

    stored: tuple[int, int]
    orientation: int = 1
    bits: int = 8

    def size(self, exif: Exif = "apply") -> tuple[int, int]:
        """(width, height) in pixels, after the orientation unless it is ignored."""
        turned = exif == "apply" and self.orientation in _TURNED
        return self.stored[::-1] if turned else self.stored

    def decoding(self, exif: Exif = "apply") -> str | None:
        """What decoding does beside reading 8 bits per channel as they are stored; None for nothing."""
        turning = {"apply": "", "ignore": " ignored"}[exif]
        steps = [f"orientation {self.orientation}{turning}"] if self.orientation != 1 else []
        return ", ".join([*steps, *([f"{self.bits} bits"] if self.bits != 8 else [])]) or None


@dataclass(frozen=True)
class ImageFile:
    """An image file, and how its EXIF orientation is taken."""

    path: Path
    exif: Exif = "apply"

    @classmethod
    def of_row(cls, root: Path, rel_path: str, decoding: str | None) -> ImageFile:
        """The file of a row of the catalog's images, decoded as it was when it was ingested."""
        return cls(root / rel_path, "ignore" if ignores_exif(decoding) else "apply")

    def rgb(self) -> Image.Image:
        """The whole image as 8-bit RGB as a person sees it; raises what `read_header` raises."""
        with open_image(self.path) as image:
            return as_rgb(image, self.exif)


def ignores_exif(decoding: str | None) -> bool:
    """Whether a catalog's `decoding` says that an image's orientation is left as it is stored."""
    return decoding is not None and " ignored" in decoding


def read_header(path: Path, *, decode: bool = False) -> ImageHeader:
    """Read an image's header and, with `decode`, all of its pixels.

    Raises:
        CatalogError: when there is no such file.
        Unreadable: when it is damaged or not an image, or, with `decode`, its pixels have no standard range.
    """
    with open_image(path) as image:
        orientation = orientation_of(image)
        # Of a TIFF Pillow turns the pixels itself, and gives the size after that.
        swapped = image.format == "TIFF" and orientation in _TURNED
        header = ImageHeader(image.size[::-1] if swapped else image.size, orientation, _bits(image))
        if decode and image.mode in _DEPTHS:
            _upper_eight(image)
        elif decode:
            image.load()
        return header


def image_size(path: Path, exif: str = "apply") -> tuple[int, int]:
    """Read an image's size from its header.

    Parameters
    ----------
    path
        The image file.
    exif
        "apply" to turn the image as its EXIF orientation says, "ignore" to take it as it is stored.

    Returns
    -------
    tuple of int
        (width, height) in pixels.

    Raises
    ------
    CatalogError
        If the file does not exist.
    Unreadable
        If it is damaged or not an image; a `ValueError`.

    Examples
    --------
    >>> image_size(root / "frames" / "c1s1_000001.jpg")
    (96, 72)
    """
    return read_header(path).size("ignore" if exif == "ignore" else "apply")


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """A file opened by Pillow; what goes wrong within is told as `read_header` tells it."""
    try:
        if path.exists() and not path.is_file():
            raise Unreadable("it is not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Of a path, Pillow would map pixels that are not compressed into memory, and mistake the sides of
            # a turned TIFF.
            with path.open("rb") as file, Image.open(file) as image:
                yield image
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise CatalogError(
            f"{path}: an annotated image is missing: add it, or ingest without images (--no-images)"
        ) from error
    except PermissionError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        why = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise Unreadable(f"not a readable image{why}") from error


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where the file gives none or nonsense."""
    exif = image.getexif() if image.format != "PNG" or "exif" in image.info else Image.Exif()
    value = exif.get(ORIENTATION, 1)  # a PNG without it would be decoded whole in search of one at its end
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def as_rgb(image: Image.Image, exif: Exif = "apply") -> Image.Image:
    """An opened image as 8-bit RGB as a person sees it; of deeper channels the upper 8 bits are kept.

    Raises:
        Unreadable: for pixels without a standard range (floating point, 32-bit integers beyond 16 bits).
    """
    orientation = orientation_of(image)
    if image.format == "TIFF":
        turn = 1 if exif == "apply" else _INVERSE.get(orientation, orientation)
    else:
        turn = orientation if exif == "apply" else 1
    rgb = (_upper_eight(image) if image.mode in _DEPTHS else image).convert("RGB")
    return rgb if turn == 1 else rgb.transpose(_TRANSPOSES[turn])


def _upper_eight(image: Image.Image) -> Image.Image:
    """A grey image of deeper pixels with the upper 8 of their 16 bits; raises what `as_rgb` raises."""
    values = np.asarray(image)
    if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
        raise Unreadable("its pixels have no standard range: convert it to 8 or 16 bits per channel")
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def _bits(image: Image.Image) -> int:
    depth = _DEPTHS.get(image.mode, 8)
    raw = getattr(image, "tile", None)
    # Pillow opens RGB of 16 bits per channel as 8, and says so in the decoder's raw mode alone.
    sixteen = any(";16" in str(part) for entry in raw or () for part in entry[3:])
    return 16 if depth == 8 and sixteen else depth
