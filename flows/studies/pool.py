"""A study on a Prefect work pool: each member is a flow run, which any worker of the pool may take.

Workers share the store, and nothing else. A key that several members need is built by one of them while the
others wait: by the store's lock in a shared folder, by its lease on object storage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from flows.config.request import RunRequest
from flows.errors import ConfigError, Failure
from flows.run.pool_runs import work_pool
from flows.studies.loading import Loaded, Loader
from flows.studies.members import Member
from flows.studies.record import StudyRecord
from flows.studies.schedule import STOPPED, Change, MemberWalk, StudyOutcome, ignore_change


def run_on_pool(
    members: Sequence[Member],
    loader: Loader,
    recorded_as: Path,
    pool: str,
    *,
    on_change: Callable[[Change], None] = ignore_change,
) -> StudyOutcome:
    """Run every member that is not built yet as a flow run on a work pool, and return how each ended.

    recorded_as, on_change
        see `run_members`; a stage is told of when the first run that needs it has ended.

    A flow run of an earlier call that goes on is taken over. A failed, cancelled or killed run fails its
    member alone. KeyboardInterrupt cancels the runs that this call has submitted.
    Raises ConfigError, before anything is submitted, for a config that is wrong, without a server, and
    without the pool; ConnectionError when the server does not answer.
    """
    walks = [MemberWalk(member, loader) for member in members]
    requests = {member.name: _request(member, loader.load(member)) for member in members}
    records = {str(walk.store): StudyRecord(recorded_as, walk.store) for walk in walks}
    progress = _Progress(walks, records, on_change)
    stopped = False
    with ExitStack() as hearts, work_pool(pool) as runs:
        try:
            for record in records.values():
                hearts.enter_context(record.heartbeat())
            progress.advance(walks)
            waiting = list(_in_turn(progress.missing(walks)))
            runs.submit({walk.member.name: requests[walk.member.name] for walk in waiting})
            by_name = {walk.member.name: walk for walk in waiting}
            for name, failure in runs.ended():
                progress.end(by_name[name], failure)
        except KeyboardInterrupt:
            stopped = True
            runs.cancel()
        finally:
            for walk in walks:
                progress.leave(walk)
            for at, record in records.items():
                record.end((w.member.name, w.failure) for w in walks if str(w.store) == at and w.failure)
    return StudyOutcome([walk.outcome for walk in walks], dict(progress.made), stopped)


def _request(member: Member, loaded: Loaded) -> RunRequest:
    """What a worker is asked for. A member promotes no tag and notifies no one: its study tells."""
    if member.until == "speed":
        raise ConfigError(f"member {member.name!r} measures the speed of a machine: run it without --on")
    config = loaded.config
    said = {"promote": config.promote, "run.notify": config.run.notify}
    silent = [f"{name}=null" for name, value in said.items() if value is not None]
    return RunRequest(
        config=member.config.resolve(),
        overrides=(*member.overrides, *silent),
        store=config.store,
        until=member.until,
    )


@dataclass
class _Progress:
    """What the store has of the members, and what came in this call."""

    walks: Sequence[MemberWalk]
    records: Mapping[str, StudyRecord]
    on_change: Callable[[Change], None]
    made: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _known: set[str] = field(default_factory=set)

    def advance(self, walks: Sequence[MemberWalk]) -> None:
        """Pass what is there before anything is submitted."""
        for walk in walks:
            walk.advance({}, self.records[str(walk.store)])
            self._known |= {f"{made.kind}/{made.key}" for made in walk.artifacts.values()}

    def missing(self, walks: Sequence[MemberWalk]) -> list[MemberWalk]:
        return [walk for walk in walks if walk.failure is None and not walk.is_whole]

    def end(self, walk: MemberWalk, failure: Failure | None) -> None:
        """Take what the ended run of a member has left in the store, and tell of what is new."""
        planned = walk.advance({}, self.records[str(walk.store)])
        for stage, made in walk.artifacts.items():
            name = f"{made.kind}/{made.key}"
            if name not in self._known:
                self._known.add(name)
                self.made[made.kind] += 1
                self._tell(walk, stage, None)
        if planned is not None:
            gone = Failure("broke", "its run has ended, and the store does not have it")
            walk.failure = failure or gone.of(planned.stage.name)
            self._tell(walk, planned.stage.name, walk.failure)

    def leave(self, walk: MemberWalk) -> None:
        """A member that still needs a stage was stopped before it."""
        planned = walk.advance({}, self.records[str(walk.store)])
        if planned is not None:
            walk.failure = STOPPED.of(planned.stage.name)

    def _tell(self, walk: MemberWalk, stage: str, failure: Failure | None) -> None:
        outcomes = [each.outcome for each in self.walks]
        self.on_change(Change(stage, walk.member.name, True, failure, lambda: outcomes))


def _in_turn(walks: Sequence[MemberWalk]) -> Iterator[MemberWalk]:
    """Members that need different artifacts next, in turn: those of one kind would wait for each other."""
    groups: dict[str, list[MemberWalk]] = defaultdict(list)
    for walk in walks:
        groups[str(walk.next_key)].append(walk)
    return (walk for walk in chain.from_iterable(zip_longest(*groups.values())) if walk is not None)
