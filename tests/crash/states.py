"""Which deaths leave the same, so that it is judged once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_VARIES = re.compile(
    rb'\d{4}-\d\d-\d\dT[\d:.]+|\b\d+\.\d{3,}\b|\b[0-9a-f]{16}\b|\b\d{4,}\b|"self_digest": "[0-9a-f]{64}"'
)
"""Times, processes, inodes, tokens and a manifest's own digest, which differ from run to run."""


def digest(parts: Iterable[bytes]) -> str:
    """Equal for states that differ only in their times, processes, inodes and the like.

    Each of those is replaced by the place where it first stands, so that it still matters which are equal: a
    file's time and the time that a note has of it, or the processes of two locks.
    """
    names: dict[bytes, bytes] = {}
    hasher = hashlib.sha256()
    for part in parts:
        plain = _VARIES.sub(lambda found: names.setdefault(found[0], b"<%d>" % len(names)), part)
        hasher.update(b"%d " % len(plain) + plain)
    return hasher.hexdigest()


def parts_of(folder: Path) -> Iterator[bytes]:
    """What lies in a folder, with the inode, size and time of each file."""
    for path in sorted(folder.rglob("*")):
        yield str(path.relative_to(folder)).encode()
        if path.is_symlink():
            yield str(path.readlink()).encode()
        elif path.is_file():
            found = path.stat()
            yield f"{found.st_ino} {found.st_size} {found.st_mtime_ns}".encode()
            yield path.read_bytes()
