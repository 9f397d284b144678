"""Moving artifacts between stores: every byte is digested on its way, and a part is never visible."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from storage.errors import StorageError
from storage.gc import sources_first
from storage.listing import list_entries, with_sources
from storage.receiving import Received
from storage.store import Store


def lineage(store: Store, names: Iterable[str]) -> list[str]:
    """`names` (`kind/key`) and all that they were made from and that is still there, sources first."""
    entries = list_entries(store)
    wanted = with_sources(entries, names)
    return [entry.name for entry in sources_first(entry for entry in entries if entry.name in wanted)]


def copy_artifact(source: Store, target: Store, name: str) -> Received | None:
    """Copy one artifact with its manifest unchanged; None when the target has it already.

    Files that the target has, in this artifact or in another, do not move; a copy that was cut off goes on
    where it ended. Raises StorageError when the source does not have it, or a file does not match its digest.
    """
    kind, _, key = name.partition("/")
    found = source.inspect(kind, key)
    if found.artifact is None:
        why = "" if found.problem is None else f": {found.problem}"
        raise StorageError(f"{source} has no artifact {name} that is intact{why}")
    manifest = found.artifact.manifest
    try:
        return target.receive(manifest, partial(source.open_file, manifest))
    except FileNotFoundError as error:
        raise StorageError(f"{name} was deleted from {source} while it was copied: {error}") from error
