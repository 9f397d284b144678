"""What stores share when they take an artifact that was made elsewhere: only what is missing moves.

A file that another artifact of the same store has too, by size and SHA-256, does not move. Nor does one that
an earlier try had brought before it was cut off.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from storage.digests import digest_file
from storage.durable import copy_digested
from storage.errors import StorageError
from storage.folders import files_under
from storage.manifest import FileEntry, Manifest, parse_manifest

if TYPE_CHECKING:
    from storage.store import Store

log = logging.getLogger(__name__)

OpenFile = Callable[[str], BinaryIO]
"""Opens a file of an artifact by its name."""

AT_ONCE = 8
"""Files on their way at the same time: each waits for a round trip or more."""
WORTH_LOOKING = 1 << 20
"""For fewer bytes than these, no manifest is read to find files that need not move."""
LOOKED_AT = 1000
"""Manifests that are read for it: a store may have a million."""


@dataclass(frozen=True)
class Received:
    """An artifact that was stored: its bytes, and how many of them moved."""

    size: int
    moved: int

    @classmethod
    def of(cls, manifest: Manifest, moved: Iterable[str]) -> Received:
        """`moved`: the names of the files that had to move."""
        return cls(
            sum(entry.size for entry in manifest.files.values()),
            sum(manifest.files[name].size for name in moved),
        )


def relatives(store: Store, manifest: Manifest) -> list[Manifest]:
    """Artifacts of a store that may have files of this one: those of its kind, first that whose rows it took.

    Of very many the newest that this machine knows. Empty where the files together are not worth the look.
    """
    if sum(entry.size for entry in manifest.files.values()) < WORTH_LOOKING:
        return []
    kind, taken_from = manifest.kind, (manifest.taken_from or "").rpartition("/")[2]
    keys = list(islice((key for key, _ in store.stamps(kind)), LOOKED_AT + 1))
    if len(keys) > LOOKED_AT:
        keys = [*filter(None, [taken_from]), *store.newest(kind)]
    found = []
    for key, raw in store.read_manifests(kind, dict.fromkeys(keys)):
        with contextlib.suppress(StorageError):
            found.append(parse_manifest(raw, f"{store}/{kind}/{key}"))
    others = (each for each in found if each.key != manifest.key)
    return sorted(others, key=lambda each: each.key != taken_from)


def fill(work: Path, manifest: Manifest, open_file: OpenFile, twins: Iterable[Twin]) -> Received:
    """Bring every file of an artifact into a folder, and remove whatever else is there.

    twins: files of other artifacts here that may be hard-linked into this one.
    Raises StorageError when a file that moves does not match its digest.
    """
    for path in files_under(work):
        entry = manifest.files.get(path.relative_to(work).as_posix())
        if entry is None or not _is_whole(path, entry):
            path.unlink()  # never written over: it may be a hard link to another artifact's file
    lacking = [name for name in manifest.files if not (work / name).is_file()]
    shared = {twin.entry: twin for twin in twins} if lacking else {}
    missing = [name for name in lacking if not _linked(work / name, shared.get(manifest.files[name]))]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="receive") as pool:
        list(pool.map(partial(bring, work, manifest, open_file), missing))
    return Received.of(manifest, missing)


@dataclass(frozen=True)
class Twin:
    """A file on this machine with this content; `is_trusted` if it is unchanged since it was verified."""

    path: Path
    entry: FileEntry
    is_trusted: bool


def bring(folder: Path, manifest: Manifest, open_file: OpenFile, name: str) -> Path:
    """Copy a file of an artifact into a folder. Raises StorageError when it does not match its digest."""
    with open_file(name) as source:
        digest = copy_digested(source, folder / name)
    if digest != manifest.files[name].sha256:
        raise StorageError(f"{name} of {manifest.name} does not match its digest: it changed or is damaged")
    return folder / name


def _is_whole(path: Path, entry: FileEntry) -> bool:
    try:
        return path.stat().st_size == entry.size and digest_file(path) == entry.sha256
    except OSError:
        return False


def _linked(target: Path, twin: Twin | None) -> bool:
    """Whether the file is now a link to the twin; False without a twin, or where there are no hard links."""
    if twin is None or not (twin.is_trusted or _is_whole(twin.path, twin.entry)):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(twin.path)
    except OSError as error:
        log.info("%s is copied, because %s cannot be hard-linked: %s", target, twin.path, error)
        return False
    return True
