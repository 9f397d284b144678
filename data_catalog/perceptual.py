"""Perceptual hashes of images, for near-duplicates: the same scene encoded or scaled anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

SIDE = 8
"""The difference hash of an 8x8 grid has 64 bits."""


def difference_hash(path: Path) -> int:
    """The 64-bit difference hash of an image: does brightness fall from each cell to the next?"""
    with Image.open(path) as image:
        image.draft("L", (SIDE * 16, SIDE * 16))
        bits = imagehash.dhash(image, hash_size=SIDE).hash.ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def difference_hashes(paths: Mapping[str, Path]) -> dict[str, int]:
    """The hash of each named image."""
    with ThreadPoolExecutor() as pool:
        found: Iterable[int] = pool.map(difference_hash, paths.values())
        return dict(zip(paths, found, strict=True))
