"""Moving artifacts between stores: every byte is digested on its way, and a part is never visible."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from storage.durable import copy_digested
from storage.errors import StorageError
from storage.listing import list_entries, with_sources
from storage.store import Artifact, Store


def lineage(store: Store, names: Iterable[str]) -> list[str]:
    """`names` (`kind/key`) and all that they were made from, as far as it is there, the oldest first."""
    entries = list_entries(store)
    wanted = with_sources(entries, names)
    chosen = [entry for entry in entries if entry.name in wanted]
    return [entry.name for entry in sorted(chosen, key=lambda entry: entry.created)]


def copy_artifact(
    source: Store, target: Store, name: str, *, progress: Callable[[int], None] | None = None
) -> bool:
    """Copy one artifact with its manifest as it is; False when the target has it already.

    What an interrupted copy left is replaced. `progress` is called with the bytes of each block.
    Raises StorageError when the source does not have it, or a file does not match its digest.
    """
    kind, _, key = name.partition("/")
    found = source.find(kind, key)
    if found is None:
        raise StorageError(f"{source} has no artifact {name} that is whole")
    with target.making(found.manifest.identity) as work:
        if work.made is not None:
            return False
        for file, entry in found.manifest.files.items():
            with (found.path / file).open("rb") as reading:
                digest = copy_digested(reading, work.path / file, progress)
            if digest != entry.sha256:
                raise StorageError(f"{found.path / file} does not match its digest: it changed or is damaged")
        _remove_others(work.path, found)
        target.publish(work.path, found.manifest)
    return True


def _remove_others(work: Path, artifact: Artifact) -> None:
    """Whatever an earlier try to make the same key here has left beside the artifact's own files."""
    for path in work.rglob("*"):
        if path.is_file() and path.relative_to(work).as_posix() not in artifact.manifest.files:
            path.unlink()
