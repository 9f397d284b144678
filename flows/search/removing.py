"""Taking files out of an index for good: their people, their embeddings, and the chance to come back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.errors import ConfigError
from flows.search.building import put_in_place, read_part
from flows.search.changes import Changes, path_digest
from flows.search.committing import alone
from flows.search.layout import IndexedPlace, read_description
from flows.search.sources import located
from storage.digests import digest_file


def remove_images(
    folder: Path,
    images: Sequence[Path] = (),
    *,
    contents: Collection[str] = (),
    roots: Mapping[str, Path] | None = None,
) -> tuple[int, int]:
    """Take images or videos out of an index, and keep them out when it is updated.

    The index remembers digests of their paths and contents, so that neither the file nor a copy of it is
    indexed again.

    Parameters
    ----------
    folder
        The index.
    images
        Files of the index; they need not exist any more. A copy of one that lies elsewhere also names it.
    contents
        SHA-256 of files, wherever they lie; those that the index does not have are not an error.
    roots
        Where places of scenes are now, by their old paths.

    Returns
    -------
    tuple of int
        Files and people that were removed.

    Raises
    ------
    ConfigError
        If the index is missing, damaged or being updated, or does not have one of the images;
        nothing is removed then.
    """
    with alone(folder):
        description = read_description(folder)
        places = [located(place, folder, roots or {}) for place in description.places]
        old = read_part(folder, description)
        sources = old.sources.to_pylist()
        chosen = {number for number, row in enumerate(sources) if row["sha256"] in contents}
        for image in images:
            rows = _rows_of(image, sources, places)
            if not rows:
                raise ConfigError(f"{image} is not in the index {folder}: nothing was removed")
            chosen |= set(rows)
        removed = {*description.removed, *contents}
        removed |= {sources[row]["sha256"] for row in chosen}
        removed |= {path_digest(_path(sources[row], places)) for row in chosen}
        changes = Changes(
            kept={
                (row["place"], row["image"]): (row["bytes"], row["mtime_ns"])
                for number, row in enumerate(sources)
                if number not in chosen
            }
        )
        described = description.model_copy(update={"removed": tuple(sorted(removed))})
        put = put_in_place(folder, described, places, [old], changes)
    return len(chosen), description.people - put.people


def _rows_of(image: Path, sources: Sequence[Mapping[str, Any]], places: Sequence[IndexedPlace]) -> list[int]:
    """The sources that a path names, and all with the content of one of them or of the file."""
    path = image.absolute()
    contents = {row["sha256"] for row in sources if _path(row, places) == path}
    if not contents and path.is_file():
        contents = {digest_file(path)}
    return [number for number, row in enumerate(sources) if row["sha256"] in contents]


def _path(row: Mapping[str, Any], places: Sequence[IndexedPlace]) -> Path:
    place: IndexedPlace = places[row["place"]]
    return place.root / str(row["image"])
