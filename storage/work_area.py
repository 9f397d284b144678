"""Where an artifact is made, and how it becomes one."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.digests import digest_file
from storage.folders import files_under, remove_from
from storage.manifest import FileEntry, Identity, Manifest
from storage.trust import Digested, stat_key

if TYPE_CHECKING:
    from storage.artifacts import Artifact, LocalStore


@dataclass
class WorkArea:
    """Where one artifact is made, under its lock. Without `commit` everything stays for a resume."""

    store: LocalStore
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

        `digests` are those of files that their writer has digested; what is no longer as it was then, and
        all others, is read again.
        `scratch` names files and folders of the work area, relative to it, that only a resume needs: they are
        no part of the artifact, and are removed when it is there. A kill before that costs disk, not work.
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
            made_by=dict(made_by or {}),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.started, 3),
            peak_memory_bytes=_peak_memory_bytes(),
        )
        self.made = self.store.publish(self.path, manifest, replace=self.again, verified=verified)
        remove_from(self.made.path, scratch)
        return self.made


def _peak_memory_bytes() -> int:
    """Of this process or of the largest of its children that have ended, whichever is larger."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(each).ru_maxrss for each in who)
    return peak if sys.platform == "darwin" else peak * 1024
