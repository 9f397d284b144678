"""The files of artifacts on object storage: where they lie, and how they get there.

<url>/<kind>/<key>/<version>/...    `version` is a digest over all files
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, cast

from storage.bucket import Bucket
from storage.digests import digest_json
from storage.durable import copy_digested
from storage.errors import StorageError
from storage.manifest import FILE_NAME, Manifest, parse_manifest
from storage.place import checked_name
from storage.receiving import AT_ONCE, OpenFile, Received, bring

_BLOCK_BYTES = 8 << 20
"""What an open file holds in memory."""


class Parts:
    """The files of the artifacts under one URL. Callers turn the client's errors into known ones."""

    def __init__(self, bucket: Bucket, url: str) -> None:
        self._bucket = bucket
        self._system = bucket.system
        self._url = url

    def key_path(self, kind: str, key: str, *more: str) -> str:
        """Raises StorageError unless `kind` and `key` are plain names."""
        return "/".join((self._bucket.prefix, checked_name(kind), checked_name(key), *more))

    def path(self, manifest: Manifest, name: str) -> str:
        return self.key_path(manifest.kind, manifest.key, version(manifest), name)

    def place(self, manifest: Manifest) -> str:
        """The URL of the folder of an artifact's files."""
        return f"{self._url}/{manifest.name}/{version(manifest)}"

    def open(self, manifest: Manifest, name: str) -> BinaryIO:
        """Raises FileNotFoundError when it is missing."""
        return cast(BinaryIO, self._system.open(self.path(manifest, name), "rb", block_size=_BLOCK_BYTES))

    def transfer(self, manifest: Manifest, name: str, target: Path | None) -> str:
        """Read a file block by block, into `target` if given; returns its SHA-256."""
        with self.open(manifest, name) as source:
            return copy_digested(source, target)

    def upload(self, work: Path, manifest: Manifest) -> None:
        """Put the files there that are missing, from a folder that has them all."""
        missing = self._not_copied(manifest, self._earlier(manifest))
        if missing:
            targets = [self.path(manifest, name) for name in missing]
            self._system.put([str(work / name) for name in missing], targets)

    def receive(self, manifest: Manifest, open_file: OpenFile, others: Iterable[Manifest]) -> Received:
        """The same from files that are opened by name, digested on their way.

        others: artifacts of this store that may have the same files, for the server to copy.
        Raises StorageError when a file does not match its digest.
        """
        missing = self._not_copied(manifest, others)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="send") as pool:
            list(pool.map(partial(self._send, manifest, open_file), missing))
        return Received.of(manifest, missing)

    def _send(self, manifest: Manifest, open_file: OpenFile, name: str) -> None:
        # By way of a file: later only sizes are compared, so what does not match its digest must not appear.
        with TemporaryDirectory(prefix="personsearch-") as folder:
            self._system.put_file(
                str(bring(Path(folder), manifest, open_file, name)), self.path(manifest, name)
            )

    def _missing(self, manifest: Manifest) -> list[str]:
        there = self._bucket.listed(f"{manifest.name}/{version(manifest)}")
        return [
            name
            for name, entry in manifest.files.items()
            if there.get(self.path(manifest, name), {}).get("size") != entry.size
        ]

    def _earlier(self, manifest: Manifest) -> list[Manifest]:
        """The artifact that rows were taken from, if it is there."""
        if manifest.taken_from is None:
            return []
        path = self.key_path(*manifest.taken_from.split("/"), FILE_NAME)
        with contextlib.suppress(StorageError):
            if (raw := self._bucket.read(path)) is not None:
                return [parse_manifest(raw, path)]
        return []

    def _not_copied(self, manifest: Manifest, others: Iterable[Manifest]) -> list[str]:
        """Have the server copy what other artifacts have, too; returns the names that are still missing."""
        names = self._missing(manifest)
        for other in others:
            parts = {entry: self.path(other, name) for name, entry in other.files.items()}
            same = [name for name in names if manifest.files[name] in parts]
            if same:
                sources = [parts[manifest.files[name]] for name in same]
                self._system.copy(sources, [self.path(manifest, name) for name in same], on_error="ignore")
                names = self._missing(manifest)
        return names


def version(manifest: Manifest) -> str:
    """A name for the files' content."""
    return digest_json({name: entry.sha256 for name, entry in manifest.files.items()})[:16]


def version_of(raw: bytes) -> str | None:
    """The version that a manifest names; None for a damaged one, which may name any."""
    try:
        return version(parse_manifest(raw, FILE_NAME))
    except StorageError:
        return None
