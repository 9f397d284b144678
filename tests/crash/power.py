"""What a power cut may leave of the calls that were made: a model of a disk that keeps what was flushed.

The bytes of a file last once the file is flushed, the names in a folder once the folder is. Of the calls that
were not flushed, any may have reached the disk, in any order: every prefix of them is laid out, and random
subsets. A rename reaches the disk whole or not at all, as on every journalling file system.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from tests.crash.shim import Call, Kind


@dataclass
class Disk:
    """Files by inode as bytes, folders as names and their inodes; `root` is the folder looked at."""

    root: int
    files: dict[int, bytearray]
    folders: dict[int, dict[str, int]]

    @classmethod
    def of(cls, root: Path) -> Disk:
        """What lies there, all of it flushed."""
        disk = cls(root.stat().st_ino, {}, {root.stat().st_ino: {}})
        for path in sorted(root.rglob("*")):
            inode = path.lstat().st_ino
            disk.folders[path.parent.stat().st_ino][path.name] = inode
            if path.is_dir():
                disk.folders.setdefault(inode, {})
            else:
                disk.files[inode] = bytearray(path.read_bytes())
        return disk

    def write(self, root: Path) -> None:
        """Lay it out as a real folder."""
        root.mkdir()
        self._write(self.root, root)

    def _write(self, folder: int, path: Path) -> None:
        for name, inode in self.folders[folder].items():
            if inode in self.folders:
                (path / name).mkdir()
                self._write(inode, path / name)
            else:
                (path / name).write_bytes(self.files.get(inode, b""))

    def digest(self) -> str:
        """Equal for disks that look the same."""
        hasher = hashlib.sha256()
        pending = [(self.root, "")]
        while pending:
            folder, path = pending.pop()
            for name, inode in sorted(self.folders[folder].items()):
                if inode in self.folders:
                    hasher.update(f"{path}/{name}/\n".encode())
                    pending.append((inode, f"{path}/{name}"))
                else:
                    content = hashlib.sha256(self.files.get(inode, b"")).hexdigest()
                    hasher.update(f"{path}/{name} {content}\n".encode())
        return hasher.hexdigest()

    def apply(self, call: Call) -> None:
        match call.kind:
            case Kind.CREATE:
                self.files.setdefault(call.b, bytearray())
                self.folders.setdefault(call.a, {})[call.name] = call.b
            case Kind.MAKE_FOLDER:
                self.folders.setdefault(call.b, {})
                self.folders.setdefault(call.a, {})[call.name] = call.b
            case Kind.WRITE:
                content = self.files.setdefault(call.a, bytearray())
                content.extend(bytes(max(0, call.b - len(content))))
                content[call.b : call.b + len(call.data)] = call.data
            case Kind.TRUNCATE:
                content = self.files.setdefault(call.a, bytearray())
                content.extend(bytes(max(0, call.b - len(content))))
                del content[call.b :]
            case Kind.RENAME:
                before = self.folders.setdefault(call.a, {})
                if before.get(call.name) == call.c:
                    del before[call.name]
                self.folders.setdefault(call.b, {})[call.other] = call.c
            case Kind.LINK:
                self.folders.setdefault(call.b, {})[call.other] = call.c
            case Kind.UNLINK:
                before = self.folders.setdefault(call.a, {})
                if before.get(call.name) == call.b:
                    del before[call.name]


@dataclass(frozen=True)
class Layout:
    """A disk after a cut behind call `point`; `returned`: the operation had returned by then."""

    point: int
    what: str
    disk: Disk
    digest: str
    returned: bool


def layouts(
    start: Disk, calls: Sequence[Call], points: Sequence[int], subsets: int, source: random.Random
) -> Iterator[Layout]:
    """For a cut after each number of calls: each prefix of what was not flushed, and random subsets of it."""
    for point in points:
        pending = _pending(calls[:point])
        waiting = [number for number in range(point) if number in pending]
        choices = [
            (f"the first {n} of {len(waiting)} unflushed", set(waiting[:n])) for n in range(len(waiting) + 1)
        ]
        if len(waiting) > 1:
            chances = [source.random() for _ in range(subsets)]
            choices += [
                (
                    f"{chance:.0%} of {len(waiting)} unflushed",
                    {n for n in waiting if source.random() < chance},
                )
                for chance in chances
            ]
        seen: set[frozenset[int]] = set()
        for what, kept in choices:
            if frozenset(kept) in seen:
                continue
            seen.add(frozenset(kept))
            disk = deepcopy(start)
            for number in range(point):
                if number not in pending or number in kept:
                    disk.apply(calls[number])
            yield Layout(point, what, disk, f"{disk.digest()} {point == len(calls)}", point == len(calls))


def _pending(calls: Sequence[Call]) -> set[int]:
    """Numbers of the calls that no flush of their file or of one of their folders has followed."""
    pending: dict[int, set[int]] = {}
    for number, call in enumerate(calls):
        if call.kind is Kind.FLUSH:
            pending = {other: waits for other, waits in pending.items() if call.a not in waits}
        elif call.kind is Kind.FAILED:
            continue
        elif call.kind in (Kind.WRITE, Kind.TRUNCATE):
            pending[number] = {call.a}
        elif call.kind in (Kind.RENAME, Kind.LINK):
            pending[number] = {call.a, call.b}
        else:
            pending[number] = {call.a}
    return set(pending)
