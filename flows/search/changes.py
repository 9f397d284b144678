"""What an update has to do: compares the files that are there with those of the index."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from flows.search.sources import Key, SceneFile
from storage.digests import digest_file


@dataclass
class Changes:
    """todo: files to search. kept: files of the index that stay, with their size and date now.

    dropped: files of the index that are not there any more. barred: files that were removed for good.
    """

    todo: list[SceneFile] = field(default_factory=list)
    kept: dict[Key, tuple[int, int]] = field(default_factory=dict)
    added: int = 0
    dropped: int = 0
    barred: int = 0

    @property
    def found(self) -> Mapping[Key, tuple[int, int]]:
        """By key, size and date of the files that are searched."""
        return {source.key: source.stat for source in self.todo}


def compare(
    files: Sequence[SceneFile], old: pa.Table, scanned: Collection[int], removed: Collection[str]
) -> Changes:
    """Compare files with the sources of the index; a file of which only the date has changed stays.

    Sources of places that were not looked through stay, too.
    """
    before = {(row["place"], row["image"]): row for row in old.to_pylist()}
    changes = Changes()
    for source in files:
        row = before.pop(source.key, None)
        if path_digest(source.path) in removed:
            changes.barred += 1
        elif row is not None and _is_same(source, row):
            changes.kept[source.key] = source.stat
        elif removed and digest_file(source.path) in removed:
            changes.barred += 1
        else:
            changes.todo.append(source)
            changes.added += row is None
    for key, row in before.items():
        if key[0] in scanned:
            changes.dropped += 1
        else:
            changes.kept[key] = row["bytes"], row["mtime_ns"]
    return changes


def restamped(old: pa.Table, kept: Mapping[Key, tuple[int, int]]) -> pa.Table:
    """The old sources with the dates of now; a source that does not stay keeps its own."""
    keys = zip(old["place"].to_pylist(), old["image"].to_pylist(), strict=True)
    now = pa.array([kept[key][1] if key in kept else None for key in keys], pa.int64())
    at = old.schema.get_field_index("mtime_ns")
    return old.set_column(at, old.schema.field(at), pc.coalesce(now, old["mtime_ns"].combine_chunks()))


def path_digest(path: object) -> str:
    """How the path of a removed file is remembered: as a digest, which does not tell the name."""
    return hashlib.sha256(f"path:{path}".encode("utf-8", "surrogateescape")).hexdigest()


def _is_same(source: SceneFile, row: Mapping[str, object]) -> bool:
    if source.stat == (row["bytes"], row["mtime_ns"]):
        return True
    return source.bytes == row["bytes"] and digest_file(source.path) == row["sha256"]
