"""Image files: size from the header, and whether all of it decodes."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data_catalog.errors import CatalogError


class Unreadable(ValueError):
    """The file is there and is no image that can be read."""


def image_size(path: Path, *, decode: bool = False) -> tuple[int, int]:
    """(width, height) in pixels as stored (EXIF rotation is not applied), from the header alone unless
    `decode`.

    Raises:
        CatalogError: when there is no such file.
        Unreadable: when it is damaged or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if decode:
                    image.load()
                return image.size
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise CatalogError(
            f"{path}: an annotated image is missing; add it, or ingest without images (--no-images)"
        ) from error
    except PermissionError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise Unreadable(f"no readable image: {error}") from error
