"""How far each member of a study is: past what its store has, to the stage that it needs next."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flows.errors import Failure, failure_of, failure_or_bug
from flows.plan.readiness import check_ready
from flows.plan.states import Planned, identity_of, resolve
from flows.stages.base import Stage
from flows.studies.loading import LoadedMember, Loader
from flows.studies.members import Member
from flows.studies.record import StudyRecord
from storage.store import Artifact
from storage.tags import stays

log = logging.getLogger(__name__)

STOPPED = Failure("interrupted", "the study was stopped")
_NO_FORCE: frozenset[str] = frozenset()


@dataclass
class MemberOutcome:
    """How one member ended: its artifacts by stage, and its failure if it has one."""

    member: Member
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    failure: Failure | None = None

    def as_data(self) -> dict[str, Any]:
        """For other programs: artifacts as kind/key."""
        return {
            "name": self.member.name,
            "settings": dict(self.member.settings),
            "error": None if self.failure is None else str(self.failure),
            "artifacts": {stage: made.name for stage, made in self.artifacts.items()},
        }


class StudyWalk:
    """All members of a study on their way, and its record in each of their stores."""

    def __init__(self, members: Sequence[Member], loader: Loader, recorded_as: Path) -> None:
        self._records: dict[str, StudyRecord] = {}
        self.members: list[MemberWalk] = []
        self._found: dict[str, _Found] = defaultdict(_Found)
        for member in members:
            loaded = loader.load(member)
            place = str(loaded.store)
            record = self._records.setdefault(place, StudyRecord(recorded_as, loaded.store))
            self.members.append(MemberWalk(member, loaded, record, self._found[place]))

    @property
    def missing(self) -> list[MemberWalk]:
        """The members that need a stage, as the last `advance` has found."""
        return [walk for walk in self.members if walk.next is not None]

    def advance(
        self, ended: Mapping[str, Failure | None], members: Sequence[MemberWalk] | None = None
    ) -> None:
        """Take members past all that is in the store, to what they need next.

        What is found is relied on once the record names it, so that no collection deletes it.

        ended
            stages that this study has built, or failed to build: their failures by `kind/key`.
        members
            by default those who have news: the store is not asked again for what was missing and has not
            ended, since whoever builds it looks for it first.
        """
        looking = [walk for walk in self.members if walk.has_news(ended)] if members is None else [*members]
        while looking:
            for found in self._found.values():
                found.missing.clear()
            for walk in looking:
                walk.advance(ended)
            for record in self._records.values():
                record.write_uses()
            looking = [walk for walk in looking if walk.drop_what_is_gone()]

    def leave(self, ended: Mapping[str, Failure | None]) -> None:
        """Take what has been built so far; a member that still needs a stage was stopped before it."""
        self.advance(ended, self.members)
        for walk in self.missing:
            walk.stop()

    @contextmanager
    def on_record(self) -> Iterator[None]:
        """Keep the records alive while the block lasts, and close them with the failures of the members."""
        with ExitStack() as hearts:
            for record in self._records.values():
                hearts.enter_context(record.heartbeat())
            try:
                yield
            finally:
                for record in self._records.values():
                    own = (walk for walk in self.members if walk.record is record)
                    record.end((walk.member.name, walk.failure) for walk in own if walk.failure)

    def outcomes(self) -> list[MemberOutcome]:
        return [walk.outcome for walk in self.members]


@dataclass
class _Found:
    """What the members of one store know of it, by `kind/key`, so that each artifact is looked for once."""

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    missing: dict[str, Planned] = field(default_factory=dict)
    """What has not been there in this look."""
    staying: set[str] = field(default_factory=set)
    """Those that were still there after the record had named them."""


class MemberWalk:
    """The progress of one member through its stages: what is cached, and what is to be built next."""

    def __init__(self, member: Member, loaded: LoadedMember, record: StudyRecord, found: _Found) -> None:
        self.member = member
        self.record = record
        self.store = loaded.store
        self.artifacts: dict[str, Artifact] = {}
        self.failure: Failure | None = None
        self.next: Planned | None = None
        """What is to be built next; None if the member is done or has failed."""
        self._stages = loaded.stages
        self.config = loaded.config
        self._takes_datasets = any(stage.kind == "ingest" for stage in loaded.stages)
        self._checked = False
        self._found = found
        self._kept = 0
        """How many of the artifacts are known to stay."""

    @property
    def outcome(self) -> MemberOutcome:
        return MemberOutcome(self.member, dict(self.artifacts), self.failure)

    def has_news(self, ended: Mapping[str, Failure | None]) -> bool:
        """Whether it has not looked yet, or what it waits for has ended."""
        return self.next is None or self.next.known.name in ended

    def advance(self, ended: Mapping[str, Failure | None]) -> None:
        """Go past all that is cached; `drop_what_is_gone` must follow, once the record names it."""
        self.next = None
        while self.failure is None and len(self.artifacts) < len(self._stages):
            stage = self._stages[len(self.artifacts)]
            try:
                if stage.kind != "ingest" and self._takes_datasets and not self._checked:
                    check_ready(self.config, self._stages, self.artifacts, self.store)
                    self._checked = True
                name = identity_of(stage, self.artifacts, self.store).name
                if name in self._found.artifacts:
                    self.artifacts[stage.name] = self._found.artifacts[name]
                    continue
                planned = self._looked_for(name, stage)
            except Exception as error:
                self.failure = logged(error).of(stage.name)
                return
            if planned.artifact is not None:
                self.record.uses(planned)
                self.artifacts[stage.name] = self._found.artifacts[name] = planned.artifact
                continue
            failure = ended.get(name)
            if failure is None:
                self.next = planned
                return
            self.failure = failure.of(stage.name)

    def _looked_for(self, name: str, stage: Stage) -> Planned:
        """How the stage stands in the store; another member may have found that it is missing."""
        if name in self._found.missing:
            return replace(self._found.missing[name], stage=stage)
        planned = resolve(stage, self.store, self.artifacts, _NO_FORCE, explain=False)
        if planned.artifact is None:
            self._found.missing[name] = planned
        return planned

    def drop_what_is_gone(self) -> bool:
        """Drop what a collection took before the record named it, and what follows. False if all stays."""
        for artifact in [*self.artifacts.values()][self._kept :]:
            if artifact.name not in self._found.staying:
                if not stays(self.store, artifact.kind, artifact.key):
                    self._found.artifacts.pop(artifact.name, None)
                    self.artifacts = dict(list(self.artifacts.items())[: self._kept])
                    self.failure, self._checked = None, False  # it may come from what is gone
                    return True
                self._found.staying.add(artifact.name)
            self._kept += 1
        return False

    def stop(self) -> None:
        """Fail before the next stage, because the study was stopped."""
        if self.next is not None:
            self.failure = STOPPED.of(self.next.stage.name)


def logged(error: BaseException) -> Failure:
    """How an error ends a member. The traceback of an internal error goes to the log."""
    if failure_of(error) is None:
        log.error("a member of the study failed with an internal error", exc_info=error)
    return failure_or_bug(error)
