"""Folders that commands write: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.errors import ConfigError
from storage.folders import whole_folder


@contextmanager
def new_folder(target: Path, option: str) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends without an error: whole, and on the
    disk.

    Raises ConfigError, before any work, if `target` holds files already or cannot be written.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        what = "is a file" if target.is_file() else "holds files already"
        raise ConfigError(f"{option} {target}: it {what}; name a new or empty folder")
    above = target.resolve().parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"{option} {target}: cannot write to folder {above}; create it, or name another")
    with whole_folder(target) as partial:
        yield partial
        if target.is_dir():
            target.resolve().rmdir()  # what was put there meanwhile is not replaced
