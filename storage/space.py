"""Room on a disk, asked for before the work and not after it."""

from __future__ import annotations

import shutil
from pathlib import Path

from storage.errors import StorageError
from storage.urls import local_path


def require_free_space(path: str | Path, n_bytes: int, *, what: str) -> None:
    """Raise StorageError when the disk under `path`, which need not exist, has less than `n_bytes` free."""
    place = local_path(path).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < n_bytes:
        raise StorageError(
            f"{what} needs {in_units(n_bytes)} and the disk of {path} has {in_units(free)} free: "
            "free some, choose another place, or store fewer rows"
        )


def in_units(size: int) -> str:
    """Bytes for people: 1.5 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if round(value, 1) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
