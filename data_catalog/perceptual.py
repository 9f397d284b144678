"""Perceptual hashes of images, for near-duplicates: the same scene encoded or scaled again."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np

from data_catalog.errors import CatalogError
from data_catalog.images import Unreadable, as_rgb, open_image

SIDE = 8
"""The difference hash of an 8x8 grid has 64 bits."""


def difference_hash(path: Path) -> int:
    """The 64-bit difference hash of an image: does brightness fall from each cell to the next?

    Raises:
        CatalogError: when it cannot be decoded.
    """
    try:
        with open_image(path) as image:
            image.draft("L", (SIDE * 16, SIDE * 16))
            bits = imagehash.dhash(as_rgb(image), hash_size=SIDE).hash.ravel()
    except Unreadable as error:
        raise CatalogError(f"{path}: {error}") from error
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class Hashes(NamedTuple):
    """The hash of every image that can be decoded, and what is wrong with the others."""

    of: dict[str, int]
    undecodable: tuple[str, ...]


def difference_hashes(paths: Mapping[str, Path]) -> Hashes:
    """The hash of each named image."""

    def look(path: Path) -> int | CatalogError:
        try:
            return difference_hash(path)
        except CatalogError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = dict(zip(paths, pool.map(look, paths.values()), strict=True))
    return Hashes(
        {name: each for name, each in found.items() if isinstance(each, int)},
        tuple(str(each) for each in found.values() if isinstance(each, CatalogError)),
    )
