"""An index of the manifests of a kind, which spares a listing from reading each of them.

<root>/.listing/<kind>     one line with a header and digests, then a column per line of the header

It holds nothing that the manifests do not say. A row is used while its manifest has the same stamp, and none
of them is looked at while the folder of the kind is unchanged; whatever is missing, damaged or other is read
from the manifests again. The file is replaced as a whole, so readers need no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import durable
from storage.place import checked_name

log = logging.getLogger(__name__)

FOLDER = ".listing"
FORMAT = 1
SETTLED_NS = 2_000_000_000
"""A folder's time may stand still this long while its content changes, on the coarsest file systems."""
_SAME_NS = 1_000_000_000
_TEXTS = ("keys", "stamps", "created", "lines")
_NUMBERS = {"seconds": "d", "sizes": "q", "sources": "q", "lineages": "q"}


@dataclass(frozen=True)
class Columns:
    """Rows of artifacts of one kind, by age and key; a column each.

    `sources` and `lineages` are places in `lines`: names, `kind/key`, with a space between; UNKNOWN where a
    manifest does not record its lineage.
    """

    keys: Sequence[str]
    stamps: Sequence[str]
    created: Sequence[str]
    seconds: Sequence[float]
    sizes: Sequence[int]
    sources: Sequence[int]
    lineages: Sequence[int]
    lines: Sequence[str]

    def __len__(self) -> int:
        return len(self.keys)


UNKNOWN = -1
EMPTY = Columns((), (), (), (), (), (), (), ())


@dataclass(frozen=True)
class IndexHeader:
    """What an index says of itself: how many artifacts it has, and for which state of the folder."""

    folder: str | None
    """The `folder_stamp` for which the rows are complete; None if they have to be compared one by one."""
    count: int
    size: int
    """Bytes of all artifacts."""
    others: tuple[str, ...]
    """Keys whose manifests are damaged or not like others: read at every listing."""


class ManifestIndex:
    """The index of one kind. `store` names what it is an index of, so that it is used for no other."""

    def __init__(self, root: Path, store: str, kind: str) -> None:
        self.path = root / FOLDER / checked_name(kind)
        self._of = {"format": FORMAT, "store": store, "kind": kind}

    def header(self) -> IndexHeader | None:
        """What the index says of itself, without its rows; None if it is missing or damaged."""
        try:
            with self.path.open("rb") as reading:
                found = self._parse(reading.readline())
        except OSError:
            return None
        return None if found is None else found[0]

    def read(self) -> tuple[IndexHeader, Columns] | None:
        """The header and all rows; None if the index is missing or damaged."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.info("%s cannot be read: %s", self.path, error)
            return None
        end = raw.find(b"\n") + 1
        found = self._parse(raw[:end])
        body = memoryview(raw)[end:]
        if found is not None and hashlib.sha256(body).hexdigest() == found[1]["digest"]:
            return found[0], _columns(body, found[1]["lengths"])
        log.warning("%s is damaged: the manifests are read again", self.path)
        return None

    def write(self, header: IndexHeader, columns: Columns) -> None:
        """Replace the index; where nothing can be written, the next listing reads the manifests again."""
        parts = [_packed(name, getattr(columns, name)) for name in (*_TEXTS, *_NUMBERS)]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        body = {
            **self._of,
            **header.__dict__,
            "lengths": [len(part) for part in parts],
            "digest": digest.hexdigest(),
        }
        text = json.dumps(body).encode()
        line = hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"
        try:
            durable.make_folder(self.path.parent)
            durable.write(self.path, b"".join((line, *parts)), lasting=False)
        except OSError as error:
            log.info("%s is not written: %s", self.path, error)

    def drop(self) -> None:
        """Remove an index that is not worth its file."""
        with contextlib.suppress(OSError):  # in a store that cannot be written, it stays
            self.path.unlink()

    def is_settled(self, folder: Path) -> bool:
        """Whether any later change gives the folder another time, by the clock of its own file system.

        On a file system where folders have no time of their own, none ever comes to rest.
        """
        probe = self.path.with_name(durable.partial_name("clock"))
        try:
            durable.make_folder(probe.parent)
            probe.touch()
            now, told = probe.stat().st_mtime_ns, probe.parent.stat().st_mtime_ns
            probe.unlink()
            stat = folder.stat()
        except OSError as error:
            log.info("the age of %s is not known: %s", folder, error)
            return False
        has_times = abs(told - now) < _SAME_NS  # the folder of a file that was made just now says so
        return has_times and max(stat.st_mtime_ns, stat.st_ctime_ns) < now - SETTLED_NS

    def _parse(self, line: bytes) -> tuple[IndexHeader, dict[str, Any]] | None:
        """The header that the first line holds; None unless it is whole, and of this store and kind."""
        check, _, text = line.rstrip(b"\n").partition(b" ")
        if hashlib.sha256(text).hexdigest().encode() != check:
            return None
        body = json.loads(text)
        if {name: body.get(name) for name in self._of} != self._of:
            return None
        return IndexHeader(body["folder"], body["count"], body["size"], tuple(body["others"])), body


def folder_stamp(folder: Path | None) -> str | None:
    """A text that changes when a folder gains, loses or changes a name, once the folder has settled.

    None without a folder: the change of an object store's prefix cannot be seen.
    """
    if folder is None:
        return None
    try:
        stat = folder.stat()
    except FileNotFoundError:
        return None
    return f"{stat.st_ino:x}.{stat.st_mtime_ns:x}.{stat.st_ctime_ns:x}"


def _packed(name: str, column: Sequence[Any]) -> bytes:
    if name in _TEXTS:
        return "".join(f"{text}\n" for text in column).encode()
    return array(_NUMBERS[name], column).tobytes()


def _columns(body: memoryview, lengths: Sequence[int]) -> Columns:
    found: dict[str, Any] = {}
    start = 0
    for name, length in zip((*_TEXTS, *_NUMBERS), lengths, strict=True):
        part = body[start : start + length]
        start += length
        if name in _TEXTS:
            *found[name], _ = str(part, "utf-8").split("\n")
        else:
            numbers = array(_NUMBERS[name])
            numbers.frombytes(part)
            found[name] = numbers
    return Columns(**found)
