"""The folder in which an artifact is built, and how it becomes an artifact."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import durable
from storage.digests import digest_file
from storage.folders import files_under, remove_from, remove_tree
from storage.lineage import RECORD, lineage_of
from storage.manifest import FILE_NAME, FileEntry, Identity, Manifest
from storage.trust import Digested, stat_key

if TYPE_CHECKING:
    from storage.store import Artifact, Store

RECEIVING = ".receiving"
"""The part of a work area that receives an artifact that was made elsewhere. Its files may be hard links to
other artifacts' files, so whoever builds the artifact here after all must not write into them."""
_TEMPORARY = "manifest.tmp"
"""The name under which earlier versions wrote a manifest."""


@dataclass
class WorkArea:
    """Where one artifact is built, under its lock. Without `commit`, everything stays for a resume."""

    store: Store
    identity: Identity
    path: Path
    made: Artifact | None = None
    again: bool = False
    started: float = field(default_factory=time.monotonic)

    def commit(
        self,
        content_digest: str,
        *,
        metrics: Mapping[str, Any] | None = None,
        sources: Mapping[str, str] | None = None,
        made_by: Mapping[str, Any] | None = None,
        scratch: Iterable[str] = (),
        digests: Mapping[str, Digested] | None = None,
    ) -> Artifact:
        """Flush every file, write the manifest, and make the artifact visible by one rename.

        `digests`: of files that their writer has digested; others, and changed files, are read again.
        `scratch` names files and folders of the work area that only a resume needs. They are not part of the
        artifact and are removed once it exists; a kill before that leaves them on the disk, losing no work.
        """
        files, verified, digests = {}, {}, digests or {}
        aside = [self.path / name for name in scratch]
        for path in files_under(self.path):
            if any(path.is_relative_to(each) for each in aside):
                continue
            name = path.relative_to(self.path).as_posix()
            stat = path.stat()
            verified[name] = stat_key(stat)
            known = digests.get(name)
            sha256 = known.sha256 if known and known.stat == verified[name] else digest_file(path)
            files[name] = FileEntry(size=stat.st_size, sha256=sha256)
        manifest = Manifest(
            identity=self.identity,
            key=self.identity.key,
            content_digest=content_digest,
            files=files,
            metrics=dict(metrics or {}),
            sources=dict(sources or {}),
            made_by={**(made_by or {}), **self._lineage(sources or {})},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.started, 3),
            peak_memory_bytes=_peak_memory_bytes(),
        )
        self.made = self.store.publish(self.path, manifest, replace=self.again, verified=verified)
        remove_from(self.made.path, scratch)
        return self.made

    def _lineage(self, sources: Mapping[str, str]) -> dict[str, list[str]]:
        """The record of all sources; empty if a link of the chain is missing."""
        found = lineage_of(sources.values(), self.store.manifest_of)
        return {} if found is None else {RECORD: found}


def drop_leftovers(work: Path) -> None:
    """Delete what is not to be built on: the manifest of an attempt that was killed during its commit, and
    what arrived of an artifact from elsewhere."""
    if (work / RECEIVING).exists():
        remove_tree(work / RECEIVING)
    drop_manifest(work)


def drop_manifest(work: Path) -> None:
    """Delete the manifest of an attempt that was killed during its commit."""
    for name in (FILE_NAME, _TEMPORARY):
        (work / name).unlink(missing_ok=True)
    durable.remove_abandoned(work)


def _peak_memory_bytes() -> int | None:
    """Peak memory of this process or of its largest finished child, whichever is larger; None on Windows."""
    try:
        resource: Any = import_module("resource")
    except ModuleNotFoundError:
        return None
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(int(resource.getrusage(each).ru_maxrss) for each in who)
    return peak if sys.platform == "darwin" else peak * 1024
