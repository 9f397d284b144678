"""SHA-256 of files, spared while a file's path, size, modification time and inode stay the same."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from data_catalog.errors import CatalogError

Stat = tuple[int, int, int]
"""Size, modification time in nanoseconds, inode."""

log = logging.getLogger(__name__)

SETTLED_NS = 50_000_000
"""A file changed this shortly before it was hashed could change again within the clock's tick: not cached."""


class HashCache:
    """A small SQLite file; several processes may use it. `None` as its path keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as db, db:
                db.execute(
                    "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, "
                    "mtime_ns INTEGER, inode INTEGER, sha256 TEXT) WITHOUT ROWID"
                )

    def digests(
        self,
        root: Path,
        names: Sequence[str],
        *,
        rehash: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, str]:
        """SHA-256 (hex) of each file, by its name relative to the root.

        Raises:
            CatalogError: when a file is missing or cannot be read.
        """
        base = str(root.resolve())
        stats = {name: _stat(f"{base}/{name}") for name in names}
        known = {} if rehash else self._known(base)
        done = {name: known[name][1] for name in names if name in known and known[name][0] == stats[name]}
        missing = [name for name in stats if name not in done]
        fresh: dict[str, str] = {}
        started = time.time_ns()
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            hashes = pool.map(file_sha256, [Path(f"{base}/{name}") for name in missing])
            for name, digest in zip(missing, hashes, strict=True):
                fresh[name] = digest
                if progress is not None:
                    progress(len(done) + len(fresh), len(stats))
        settled = {n: d for n, d in fresh.items() if stats[n][1] < started - SETTLED_NS}
        self._remember(base, {name: (stats[name], digest) for name, digest in settled.items()})
        return {name: fresh[name] if name in fresh else done[name] for name in stats}

    def _connect(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(str(self.path), timeout=30)
        except sqlite3.Error as error:
            raise CatalogError(f"{self.path}: the cache of file hashes cannot be opened: {error}") from error

    def _known(self, base: str) -> dict[str, tuple[Stat, str]]:
        if self.path is None:
            return {}
        query = "SELECT path, size, mtime_ns, inode, sha256 FROM files WHERE path >= ? AND path < ?"
        with closing(self._connect()) as db:
            rows = db.execute(query, (f"{base}/", f"{base}0")).fetchall()  # '0' follows '/'
        skip = len(base) + 1
        return {path[skip:]: ((size, mtime, inode), digest) for path, size, mtime, inode, digest in rows}

    def _remember(self, base: str, found: dict[str, tuple[Stat, str]]) -> None:
        if self.path is None or not found:
            return
        rows = [(f"{base}/{name}", *stat, digest) for name, (stat, digest) in found.items()]
        try:
            with closing(self._connect()) as db, db:
                db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            # In a read-only store, or on a full disk, the files are hashed again next time.
            log.info("the hashes of %d files are not remembered: %s", len(rows), error)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error


def _stat(path: str) -> Stat:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path for each of many thousand files would cost more than the stat
    except FileNotFoundError as error:
        raise CatalogError(
            f"{path}: no such file; if it is an image, add it or ingest without images (--no-images)"
        ) from error
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path}: cannot be read: {error}") from error
    return found.st_size, found.st_mtime_ns, found.st_ino
