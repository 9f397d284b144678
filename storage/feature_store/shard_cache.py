"""Rows of a feature store on object storage, with whole shards kept on this machine up to a bounded size.

A row whose shard is here is read from the disk, any other by a ranged request. Shards arrive behind the
reader, digested on their way, and are named by their SHA-256, so that stores which share shards share them
here, too. When the cache is full, the shards that were not used for longest make room, but none that was used
since this reader was opened: rows are drawn at random from all shards, so it would be fetched over and over.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from storage import durable
from storage.errors import StorageError
from storage.feature_store.disk import DiskReader
from storage.feature_store.layout import ArrayLayout
from storage.feature_store.reader import FeatureReader, Tier
from storage.feature_store.remote import RemoteReader, fetch
from storage.locks import exclusive
from storage.manifest import FileEntry
from storage.urls import join

log = logging.getLogger(__name__)

_THREADS = 2
_PIECE = 16 << 20
"""Bytes of a shard that one request asks for."""


@dataclass(frozen=True)
class ShardCache:
    """A folder of shards, shared by all readers of this machine.

    Parameters
    ----------
    folder
        Created if needed.
    limit
        Bytes that all shards together may take.
    files
        Size and SHA-256 of the artifact's files by name, as its manifest has them; shards are checked against
        them.

    Examples
    --------
    >>> cache = ShardCache(work, limit=20 << 30, files={})
    >>> open_features("s3://bucket/store/features/KEY", shard_cache=cache)  # doctest: +SKIP
    """

    folder: Path
    limit: int
    files: Mapping[str, FileEntry]

    def path(self, entry: FileEntry) -> Path:
        return self.folder / entry.sha256

    def admit(self, entry: FileEntry, arrived: Path, since: float) -> bool:
        """Move a shard that has arrived into the folder; False if no room can be made for it.

        since: shards that were used since then, in seconds of the epoch, stay.
        """
        with exclusive(self.folder / ".lock", what="the cache of shards"):
            there = {file: file.stat() for file in self.folder.iterdir() if not file.name.startswith(".")}
            same = there.pop(self.path(entry), None)
            if same is not None and same.st_size == entry.size:
                return True  # another process that reads the same store was faster
            taken = sum(stat.st_size for stat in there.values())
            removable = [file for file, stat in there.items() if stat.st_mtime < since]
            if taken - sum(there[file].st_size for file in removable) + entry.size > self.limit:
                return False
            for file in sorted(removable, key=lambda file: there[file].st_mtime):
                if taken + entry.size <= self.limit:
                    break
                taken -= there[file].st_size
                file.unlink()
            arrived.replace(self.path(entry))
        return True


class CachedReader(FeatureReader):
    """Reads rows of the array at `array`, a path on `system`, with its shards in a cache."""

    tier: Tier = "remote"

    def __init__(
        self,
        system: AbstractFileSystem,
        array: str,
        layout: ArrayLayout,
        read_index: Callable[[], pa.Table],
        cache: ShardCache,
        *,
        prefix: str,
        threads: int,
    ) -> None:
        """prefix: of the names that the cache's files have for this array's shards, such as `features/`."""
        super().__init__(layout.shape, layout.dtype, read_index)
        self._system, self._array, self._layout, self._cache = system, array, layout, cache
        self._entries = [
            cache.files.get(prefix + layout.shard_key(shard)) for shard in range(layout.n_shards)
        ]
        self._remote = RemoteReader(system, array, layout, read_index)
        self._disk = DiskReader(cache.folder, layout, read_index, threads=threads, file_of=self._file_of)
        self._opened = time.time()
        self._here = np.zeros(layout.n_shards, bool)
        self._asked = np.zeros(layout.n_shards, bool)
        self._wanted: SimpleQueue[int] = SimpleQueue()
        self._closed = threading.Event()
        self._admitting = threading.Lock()  # the cache's own lock warns of who waits: other processes should
        durable.make_folder(cache.folder)
        durable.remove_abandoned(cache.folder)
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(_THREADS)]
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        self._closed.set()
        for worker in self._workers:
            worker.join()
        self._disk.close()

    def _fill(self, indices: np.ndarray, out: np.ndarray) -> None:
        shards = indices // self._layout.rows_per_shard
        for shard in np.unique(shards[~self._asked[shards]]).tolist():
            self._asked[shard] = True
            self._here[shard] = self._touch(shard)
            if not self._here[shard] and self._entries[shard] is not None:
                self._wanted.put(shard)
        here = self._here[shards]
        if here.all():
            self._read(indices, out)
            return
        for read, mine in ((self._remote._fill, ~here), (self._read, here)):
            if mine.any():
                rows = np.empty((int(mine.sum()), out.shape[1]), out.dtype)
                read(indices[mine], rows)
                out[mine] = rows

    def _read(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Read rows from the cache."""
        try:
            self._disk._fill(indices, out)
        except FileNotFoundError:
            # Another process took a shard that this one could not keep open.
            self._here[np.unique(indices // self._layout.rows_per_shard)] = False
            self._remote._fill(indices, out)

    def _file_of(self, shard: int) -> Path:
        entry = self._entries[shard]
        assert entry is not None, "only shards of the cache are read from it"
        return self._cache.path(entry)

    def _touch(self, shard: int) -> bool:
        """Whether the shard is in the cache, and then say that it is in use."""
        entry = self._entries[shard]
        if entry is None:
            return False
        path = self._cache.path(entry)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == entry.size:
                os.utime(path)
                return self._opens(shard)
        return False

    def _opens(self, shard: int) -> bool:
        """Open the shard's file now: whoever removes it later takes its name, not its content."""
        try:
            self._disk.open(shard)
        except (StorageError, OSError) as error:
            log.warning("a shard of the cache is fetched again: %s", error)
            return False
        return True

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                shard = self._wanted.get(timeout=0.1)
            except Empty:
                continue
            try:
                self._here[shard] = self._fetch(shard)
            except OSError as error:
                log.warning("shard %d of %s stays where it is: %s", shard, self._array, error)

    def _fetch(self, shard: int) -> bool:
        """Bring a shard into the cache; False if it is full."""
        entry = self._entries[shard]
        assert entry is not None
        arriving = self._cache.folder / durable.partial_name(entry.sha256)
        path = join(self._array, self._layout.shard_key(shard))
        hasher = hashlib.sha256()
        try:
            with arriving.open("wb") as writing:
                for start in range(0, entry.size, _PIECE):
                    if self._closed.is_set():
                        return False
                    (piece,) = fetch(self._system, [path], [start], [min(start + _PIECE, entry.size)])
                    if isinstance(piece, Exception):
                        raise OSError(f"{path} cannot be read: {piece}") from piece
                    hasher.update(piece)
                    writing.write(piece)
                writing.flush()
                os.fsync(writing.fileno())  # a file that is named by its digest is not digested again
            if hasher.hexdigest() != entry.sha256:
                raise OSError(f"{path} does not match its digest: verify the store")
            with self._admitting:
                return self._cache.admit(entry, arriving, self._opened) and self._opens(shard)
        finally:
            arriving.unlink(missing_ok=True)
