"""Putting the files of an update in place: all of them or none, whenever the process is killed.

They are written under `.next`, which counts once it holds `complete`; from then on any process that comes
by moves them to where they belong.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.errors import ConfigError
from flows.search.embeddings import write_embeddings
from flows.search.layout import DESCRIPTION, EMBEDDINGS, PEOPLE, SOURCES, Description
from flows.search.merging import Merged
from flows.search.segments import parquet_bytes
from personsearch_core.checksums import CHECKSUMS, checksum_text
from storage import durable
from storage.locks import exclusive_now

_NEXT, _COMPLETE, _LOCK = ".next", "complete", ".lock"


class Updating(ConfigError):
    """Another process is updating the index."""


@contextmanager
def alone(index: Path) -> Iterator[None]:
    """Hold the index against other updates, and finish the last one. Raises Updating if one is running."""
    durable.make_folder(index)
    with exclusive_now(index / _LOCK) as held:
        if not held:
            raise Updating(f"{index} is being updated by another process: wait until it is done")
        _settle(index)
        yield


def settle(index: Path) -> None:
    """Finish an update that was killed while its files were put in place; does nothing otherwise.

    Raises Updating if a process is just doing that.
    """
    if (index / _NEXT / _COMPLETE).exists():
        with alone(index):
            pass


def commit(index: Path, merged: Merged, description: Description) -> None:
    """Replace the tables and the embeddings of an index."""
    folder = index / _NEXT
    shutil.rmtree(folder, ignore_errors=True)
    durable.make_folder(folder)
    write_embeddings(
        folder / EMBEDDINGS, merged.blocks(), len(merged.people), description.dimensions, description.content
    )
    people = merged.people.replace_schema_metadata({"content": description.content})
    durable.write(folder / PEOPLE, parquet_bytes(people))
    durable.write(folder / SOURCES, parquet_bytes(merged.sources))
    durable.write(folder / DESCRIPTION, description.model_dump_json(indent=1) + "\n")
    written = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    durable.write(folder / CHECKSUMS, checksum_text(written))
    durable.write(folder / _COMPLETE, "")
    _settle(index)


def _settle(index: Path) -> None:
    folder = index / _NEXT
    if not (folder / _COMPLETE).exists():
        shutil.rmtree(folder, ignore_errors=True)  # an update that was killed while it wrote them
        return
    for name in (EMBEDDINGS, PEOPLE, SOURCES, CHECKSUMS, DESCRIPTION):  # who sees the last one finds all
        if not (folder / name).exists():
            continue
        if (index / name).is_dir():
            shutil.rmtree(index / name)
        (folder / name).replace(index / name)
        durable.flush(index)
    shutil.rmtree(folder)
