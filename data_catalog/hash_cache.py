"""SHA-256 of files, spared while a file's path, size, modification time and inode stay the same.

The cache is only a memory: where it is damaged it is set aside, or the row left out, and files are hashed
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from data_catalog.errors import CatalogError
from data_catalog.files import open_file

Stat = tuple[int, int, int]
"""Size, modification time in nanoseconds, inode."""

log = logging.getLogger(__name__)

SETTLED_NS = 50_000_000
"""A file changed this shortly before it was hashed could change again within the clock's tick: not cached."""


_TABLE = (
    "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
    "inode INTEGER, sha256 TEXT, row_check INTEGER) WITHOUT ROWID"
)


class HashCache:
    """A small SQLite file; several processes may use it. `None` as its path keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def digests(self, root: Path, names: Sequence[str], *, rehash: bool = False) -> dict[str, str]:
        """SHA-256 (hex) of each file, by its name relative to the root.

        Raises:
            CatalogError: when a file is missing or cannot be read.
        """
        base = str(root.resolve())
        stats = {name: _stat(f"{base}/{name}") for name in names}
        known = {} if rehash else self._known(base)
        done = {name: known[name][1] for name in names if name in known and known[name][0] == stats[name]}
        missing = [name for name in stats if name not in done]
        started = time.time_ns()
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            hashes = pool.map(file_sha256, [Path(f"{base}/{name}") for name in missing])
            fresh = dict(zip(missing, hashes, strict=True))
        settled = {n: d for n, d in fresh.items() if stats[n][1] < started - SETTLED_NS}
        self._remember(base, {name: (stats[name], digest) for name, digest in settled.items()})
        return done | fresh

    def forget(self, names: Sequence[str]) -> None:
        """Delete what is remembered of files of these names under any root, from free pages, too."""
        if self.path is None or not self.path.is_file():
            return
        with closing(sqlite3.connect(self.path, timeout=30)) as db:
            db.execute("PRAGMA secure_delete = ON")
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'hashes'").fetchone():
                with db:
                    ends = [(f"/{name}",) * 2 for name in names if _is_unicode(name)]
                    db.executemany("DELETE FROM hashes WHERE substr(path, -length(?)) = ?", ends)

    def _known(self, base: str) -> dict[str, tuple[Stat, str]]:
        if self.path is None or not self.path.is_file():
            return {}
        query = "SELECT * FROM hashes WHERE path >= ? AND path < ?"
        rows: list[Sequence[Any]] = []
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as db:
                db.text_factory = _text
                if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'hashes'").fetchone():
                    rows = db.execute(query, (f"{base}/", f"{base}0")).fetchall()  # '0' follows '/'
        except sqlite3.DatabaseError as error:
            self._give_up(error)
        return dict(_trusted(rows, len(base) + 1))

    def _remember(self, base: str, found: dict[str, tuple[Stat, str]]) -> None:
        if self.path is None or not found:
            return
        rows = [
            (f"{base}/{n}", *stat, digest) for n, (stat, digest) in found.items() if _is_unicode(base + n)
        ]
        checked = [(*row, _row_check(row)) for row in rows]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as db, db:
                db.execute(_TABLE)
                db.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)", checked)
        except (sqlite3.DatabaseError, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Go on without the memory; a file that is not a sound database is replaced by a new one."""
        assert self.path is not None
        if isinstance(error, OSError | sqlite3.OperationalError) and "malformed" not in str(error):
            # In a read-only store, or on a full disk, the files are hashed again next time.
            log.info("%s: hashes of files are not remembered: %s", self.path, error)
            return
        aside = self.path.with_name(f"{self.path.name}.damaged")
        log.warning(
            "%s: %s: it is set aside as %s, and the files are hashed again", self.path, error, aside.name
        )
        for ending in ("-journal", "-wal", "-shm"):
            Path(f"{self.path}{ending}").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self.path.replace(aside)


def _text(value: bytes) -> str:
    """Text that a damaged row may hold; its check finds that row."""
    return value.decode("utf-8", "replace")


def _is_unicode(name: str) -> bool:
    """Whether SQLite can hold the name; a file system's name may be any bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _row_check(row: Sequence[Any]) -> int:
    """CRC-32 over a row: SQLite itself does not notice a value that was flipped on the disk."""
    return zlib.crc32(repr(tuple(row)).encode("utf-8", "surrogatepass"))


def _trusted(rows: Iterable[Sequence[Any]], skip: int) -> Iterator[tuple[str, tuple[Stat, str]]]:
    """Name, stat and digest of the rows whose check is right."""
    damaged = 0
    for *row, check in rows:
        if check == _row_check(row):
            path, size, mtime, inode, digest = row
            yield path[skip:], ((size, mtime, inode), digest)
        else:
            damaged += 1
    if damaged:
        log.warning("%d remembered hashes of files are damaged; the files are hashed again", damaged)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stat(path: str) -> Stat:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path for each of many thousand files would cost more than the stat
    except FileNotFoundError as error:
        raise CatalogError(
            f"{path} does not exist; if it is an image, add it or ingest without images (--no-images)"
        ) from error
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path}: cannot be read: {error}") from error
    return found.st_size, found.st_mtime_ns, found.st_ino
