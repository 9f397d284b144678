"""Directories: filling them whole or not at all, listing and deleting their content."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.durable import abandoned, flush, flush_tree, partial_name


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends without an error: whole, and on the
    disk. An existing folder is replaced; a kill between the two renames leaves neither under that name.

    What killed processes left of the same folder is deleted first. The folder above must exist.
    """
    target = target.resolve()  # behind a link, it is the folder that is replaced
    above = target.parent
    for left in abandoned(above, target.name):
        if left.is_dir():
            remove_tree(left)
    partial, before = (above / partial_name(target.name) for _ in range(2))
    partial.mkdir()
    try:
        yield partial
        flush_tree(partial)
        _replace(target, partial, before)
    finally:
        for left in (partial, before) if target.is_dir() else (partial,):
            if left.is_dir():
                remove_tree(left)
                flush(above)


def _replace(target: Path, new: Path, before: Path) -> None:
    """Not deleted in place: a death meanwhile would leave a part of the old folder under its name."""
    try:
        if target.is_dir():
            target.rename(before)
        new.rename(target)
    except BaseException:  # Ctrl-C, too
        if before.is_dir() and not target.exists():
            before.rename(target)
        raise
    flush(target.parent)


def remove_tree(folder: Path) -> None:
    """Delete a folder; files that another process deletes at the same time are not an error."""

    def is_gone(function: object, path: str, failure: tuple[Any, BaseException, Any]) -> None:
        if not isinstance(failure[1], FileNotFoundError):
            raise failure[1]

    shutil.rmtree(folder, onerror=is_gone)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder, without those deleted meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def visible_names(folder: Path) -> Iterator[str]:
    """The folders in a folder, without hidden ones; none if the folder does not exist."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        return


def files_under(folder: Path) -> list[Path]:
    """Every file at any depth, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def remove_from(folder: Path, names: Iterable[str]) -> None:
    """Delete files and folders by their names in `folder`; missing ones are ignored."""
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def cache_folder() -> Path:
    """The local folder for work and copies: $PERSONSEARCH_CACHE, or ~/.cache/personsearch."""
    chosen = os.environ.get("PERSONSEARCH_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "personsearch"
