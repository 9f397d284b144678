"""The one way to write files that must last: whole or not at all, and on the disk on return."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20


def write(file: Path, content: bytes | str, *, lasting: bool = True) -> None:
    """Put `content` at `file`, in place of what is there; see `whole_file`."""
    with whole_file(file, lasting=lasting) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(file: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A temporary name to write to; without an error it is flushed, and renamed to `file` at the block's end.

    After a power cut the file has the old content or the new one. With `lasting=False` nothing waits for the
    disk: for what only spares time, and is worked out again when it is damaged. The folder must exist.
    """
    partial = file.with_name(partial_name(file.name))
    try:
        yield partial
        if lasting:
            flush(partial)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if lasting:
        flush(file.parent)


def remove(file: Path) -> None:
    """Delete a file durably. Raises FileNotFoundError when it is missing."""
    file.unlink()
    flush(file.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, so that a power cut loses none."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        flush(each.parent)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Windows flushes no folders."""
    if os.name == "nt" and path.is_dir():
        return
    # Windows flushes only what may be written.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Bring everything in a folder, at any depth, to the disk; what links lead to is not looked at."""
    for path in folder.rglob("*"):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            flush(path)
    flush(folder)


def copy_digested(source: BinaryIO, target: Path | None) -> str:
    """Read a stream to its end, into a new file if given, and return its SHA-256; nothing is flushed."""
    hasher = hashlib.sha256()
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    with (target or Path(os.devnull)).open("wb") as writing:
        while block := source.read(_BLOCK):
            hasher.update(block)
            writing.write(block)
    return hasher.hexdigest()


def partial_name(name: str) -> str:
    """A hidden name that says which process of which host writes what will be called `name`."""
    return f".{name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.partial"


def abandoned(folder: Path, of: str | None = None) -> list[Path]:
    """What dead processes of this host have left unfinished in a folder; only of the name `of`, if given."""
    mine = f".{socket.gethostname()}."
    start = "." if of is None else f".{of}{mine}"
    return [
        folder / name
        for name in names_in(folder)
        if name.startswith(start) and name.endswith(".partial") and mine in name
        if not is_running(name.split(".")[-3])
    ]


def names_in(folder: Path) -> list[str]:
    """What is in a folder, hidden names too; nothing if there is no folder. A million in half a second."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_running(process: str) -> bool:
    """Whether there is a process with this id, as the name of a file has it; False for what is not an id."""
    if not process.isdecimal():
        return False
    if os.name == "nt":
        import psutil  # a signal of 0 would end the process there

        return bool(psutil.pid_exists(int(process)))
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove_abandoned(folder: Path) -> None:
    """Delete the files of killed writers; folders go with the next one that is filled in their place."""
    for file in abandoned(folder):
        if not file.is_dir():
            file.unlink(missing_ok=True)
