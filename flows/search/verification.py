"""Whether an index is whole: its files are checked against the digests recorded when they were written."""

from __future__ import annotations

from pathlib import Path

from flows.errors import ConfigError
from flows.search.layout import DESCRIPTION, EMBEDDINGS, MODEL, PEOPLE, SOURCES, Description, read_description
from flows.search.model import digest_of_model
from personsearch_core.checksums import CHECKSUMS, listed_files, problems
from personsearch_core.errors import PersonSearchError

_READ_AT_ONCE = (DESCRIPTION, PEOPLE, f"{EMBEDDINGS}/zarr.json")


def require_read(folder: Path) -> None:
    """Check what `open_index` reads against its digests; of the embeddings, only the size is checked.

    Raises ConfigError if a file does not match its digest.
    """
    _refuse(folder, problems(folder, _READ_AT_ONCE))


def require_whole(folder: Path) -> None:
    """Check every file of the index, but not of its model, against its digest; raises as `require_read`."""
    _refuse(folder, problems(folder, _files(folder)))


def verify_index(folder: Path) -> int:
    """Read every byte of an index, its model and its approximate index.

    Returns the number of files, without those of the model.

    Raises ConfigError if a file is missing or does not match its digest, or if digests are missing.
    """
    from flows.search.approximate import ABOUT, GRAPH, GRAPH_CHECKSUMS  # loads torch

    description = read_description(folder)
    parts = [(_files(folder), CHECKSUMS)]
    if any((folder / name).exists() for name in (ABOUT, GRAPH, GRAPH_CHECKSUMS)):
        parts.append(({ABOUT, GRAPH}, GRAPH_CHECKSUMS))
    found = _damaged_model(folder / MODEL, description)
    for names, sums in parts:
        found += problems(folder, names, sums)
        if not (folder / sums).exists():
            found.append(f"{sums} is missing, unless an earlier version, which wrote none, built it")
    _refuse(folder, found)
    return sum(len(names) for names, _ in parts)


def _damaged_model(model: Path, description: Description) -> list[str]:
    """What is wrong with the index's copy of its model, which may also be kept elsewhere."""
    if not model.is_dir():
        return []
    try:
        is_other = digest_of_model(model) != description.model
    except (ConfigError, PersonSearchError) as error:
        return [str(error)]
    return [f"{MODEL} is not the model that the index was built with"] if is_other else []


def _files(folder: Path) -> set[str]:
    """Files that an index should have, and those that it has."""
    arrays = {path.relative_to(folder).as_posix() for path in (folder / EMBEDDINGS).rglob("*")}
    there = {name for name in arrays if (folder / name).is_file()}
    return {DESCRIPTION, PEOPLE, SOURCES, *there, *listed_files(folder)}


def _refuse(folder: Path, found: list[str]) -> None:
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigError(f"{folder} is damaged: {'; '.join(found[:3])}{more}: rebuild the index")
