"""The preloaded library that cuts a process off at its n-th changing call, and records these calls."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


class Mode(IntEnum):
    """What happens at the n-th call; the values are those of shim.c."""

    COUNT = 1
    BEFORE = 2
    HALF = 3
    AFTER = 4
    NO_SPACE = 5
    IO_ERROR = 6
    SHORT = 7


class Kind(IntEnum):
    """Kinds of recorded calls; the values are those of shim.c."""

    CREATE = 1
    TRUNCATE = 2
    WRITE = 3
    FLUSH = 4
    RENAME = 5
    UNLINK = 6
    MAKE_FOLDER = 7
    LINK = 8
    FAILED = 9


@dataclass(frozen=True)
class Call:
    """One recorded call: inode numbers, names and bytes, as far as its kind has them.

    CREATE, MAKE_FOLDER: folder `a`, inode `b`, `name`. WRITE: inode `a`, offset `b`, `data`. TRUNCATE: inode
    `a`, size `b`. FLUSH: inode `a`. RENAME, LINK: folders `a` and `b`, inode `c`, `name` and `other`.
    UNLINK: folder `a`, inode `b`, `name`. FAILED: the call failed by itself, and changed nothing.
    """

    kind: Kind
    a: int
    b: int
    c: int
    name: str
    other: str
    data: bytes


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> Path:
    """Compile the library into a folder; raises CalledProcessError."""
    library = folder / "crash_shim.so"
    command = [compiler() or "cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    return library


def arm(root: Path, mode: Mode, point: int = -1, log: int = -1) -> None:
    """Count the calls below `root` from 0, and do `mode` at call `point`; `log`: an open file for records."""
    library = ctypes.CDLL(None)
    library.crash_arm(os.fsencode(root), int(mode), ctypes.c_long(point), log)


def wait_for_disk() -> None:
    """From now on a flush is one; before, it only counts."""
    ctypes.CDLL(None).crash_wait_for_disk(1)


def disarm() -> int:
    """Stop counting; returns the number of calls."""
    library = ctypes.CDLL(None)
    library.crash_disarm.restype = ctypes.c_long
    return int(library.crash_disarm())


def read_log(content: bytes) -> Iterator[Call]:
    start = 0
    while start < len(content):
        end = content.index(b"\n", start)
        numbers, name, other = content[start:end].split(b"\t")
        kind, a, b, c, length = map(int, numbers.split())
        start = end + 1 + length
        data = content[end + 1 : start]
        yield Call(Kind(kind), a, b, c, name.decode(), other.decode(), data)
