"""Whether an index is whole: its files are held to the digests that were noted when they were written."""

from __future__ import annotations

from pathlib import Path

from flows.errors import ConfigError
from flows.search.layout import DESCRIPTION, EMBEDDINGS, MODEL, PEOPLE, SOURCES, read_description
from personsearch_core.checksums import CHECKSUMS, listed_files, problems

_READ_AT_ONCE = (DESCRIPTION, PEOPLE, f"{EMBEDDINGS}/zarr.json")


def require_read(folder: Path) -> None:
    """Hold what `open_index` reads to its digests; of the embeddings, only the size is trusted.

    Raises ConfigError if a file does not hold to its digest.
    """
    _refuse(folder, problems(folder, _READ_AT_ONCE))


def require_whole(folder: Path) -> None:
    """Hold every file of the index, but not of its model, to its digest; raises as `require_read`."""
    _refuse(folder, problems(folder, _files(folder)))


def verify_index(folder: Path) -> int:
    """Read every byte of an index, its model and its approximate index; returns the number of files.

    Raises ConfigError if a file is missing or does not hold to its digest, or if there are no digests.
    """
    from flows.search.approximate import ABOUT, GRAPH, GRAPH_CHECKSUMS  # both load torch
    from personsearch_core.export import LOADED

    read_description(folder)
    parts = [
        ("", folder, _files(folder), CHECKSUMS),
        (f"{MODEL}/", folder / MODEL, {*LOADED, *listed_files(folder / MODEL)}, CHECKSUMS),
    ]
    if any((folder / name).exists() for name in (ABOUT, GRAPH, GRAPH_CHECKSUMS)):
        parts.append(("", folder, {ABOUT, GRAPH}, GRAPH_CHECKSUMS))
    found = []
    for start, place, names, sums in parts:
        found += [f"{start}{problem}" for problem in problems(place, names, sums)]
        if not (place / sums).exists():
            found.append(f"{start}{sums} is missing, unless an earlier version, which wrote none, built it")
    _refuse(folder, found)
    return sum(len(names) for _, _, names, _ in parts)


def _files(folder: Path) -> set[str]:
    """Files that an index should have, and those that it has."""
    arrays = {path.relative_to(folder).as_posix() for path in (folder / EMBEDDINGS).rglob("*")}
    there = {name for name in arrays if (folder / name).is_file()}
    return {DESCRIPTION, PEOPLE, SOURCES, *there, *listed_files(folder)}


def _refuse(folder: Path, found: list[str]) -> None:
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigError(f"{folder} is damaged: {'; '.join(found[:3])}{more}: build the index again")
