"""The record of a study: one entry per artifact, however many members need it, stored with those of runs.

`gc` uses it to keep what a running study needs, `status` to show how a study ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.errors import Failure
from flows.plan.states import Planned
from flows.run.records import RunRecord, heartbeat, new_record_path
from flows.wording import first_few
from storage.store import Artifact, Store


class StudyRecord:
    """A RunRecord whose stages are built in parallel."""

    def __init__(self, config: Path, store: Store) -> None:
        self._run = RunRecord(new_record_path(store.root), str(config))
        self._entries: dict[str, dict[str, Any]] = {}
        self._is_written = True

    def written(self) -> Path:
        """The record's file, which is there from now on."""
        self._run.write()
        return self._run.path

    def heartbeat(self) -> AbstractContextManager[None]:
        """See `flows.run.records.heartbeat`."""
        return heartbeat(self._run)

    def uses(self, planned: Planned) -> None:
        """Note an artifact that exists; `write_uses` writes all that are noted."""
        if planned.known.name not in self._entries:
            self._run.stages.append(planned.as_record())
            self._entries[planned.known.name] = self._run.stages[-1]
            self._is_written = False

    def write_uses(self) -> None:
        """Write the record if an artifact was noted since: once for many, since each write is flushed."""
        if not self._is_written:
            self._run.write()
            self._is_written = True

    def begin(self, planned: Planned, member: str, log_path: Path) -> None:
        """Note the start of a stage that `member` is the first to need."""
        self._run.begin(planned, log_path)
        self._run.stages[-1]["member"] = member
        self._entries[planned.known.name] = self._run.stages[-1]

    def made(self, artifact: Artifact) -> None:
        self._to_the_end(artifact.name)
        self._run.made(artifact)

    def failed(self, name: str, failure: Failure) -> None:
        self._to_the_end(name)
        self._run.failed(failure)

    def end(self, failures: Iterable[tuple[str, Failure]]) -> None:
        """Close the record with the failures, as (member, failure) in grid order."""
        members: dict[Failure, list[str]] = {}
        for member, failure in failures:
            members.setdefault(failure, []).append(member)
        self._run.failure = _joined([failure.of(first_few(who)) for failure, who in members.items()])
        self._run.end()

    def _to_the_end(self, name: str) -> None:
        # RunRecord assumes that the last stage is the one that has just ended.
        entry = self._entries[name]
        self._run.stages[:] = [*(stage for stage in self._run.stages if stage is not entry), entry]


def _joined(failures: Sequence[Failure]) -> Failure | None:
    """One failure, of the first one's kind, that names all of them and their logs."""
    if len(failures) < 2:
        return failures[0] if failures else None
    return replace(failures[0], message="\n  ".join(map(str, failures)), log=None)
