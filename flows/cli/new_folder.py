"""Folders that commands write: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.errors import ConfigError
from storage.durable import abandoned, flush, flush_tree, partial_name
from storage.folders import remove_tree


@contextmanager
def new_folder(target: Path, option: str) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends without an error: whole, and on the
    disk.

    Raises ConfigError, before any work, if `target` holds files already or cannot be written.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        what = "is a file" if target.is_file() else "holds files already"
        raise ConfigError(f"{option} {target}: it {what}; name a new or empty folder")
    above = target.absolute().parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"{option} {target}: cannot write to folder {above}; create it, or name another")
    for left in abandoned(above):
        if left.is_dir() and left.name.startswith(f".{target.name}."):
            remove_tree(left)
    partial = above / partial_name(target.name)
    partial.mkdir()
    try:
        yield partial
        flush_tree(partial)
        if target.is_dir():
            target.rmdir()
        partial.replace(target)
        flush(above)
    finally:
        if partial.is_dir():
            remove_tree(partial)
