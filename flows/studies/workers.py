"""A study on a Prefect work pool or a Dask cluster: each member is a flow run or a task, for any worker.

Workers share the store, and nothing else. A key that several members need is built by one of them while the
others wait: by the store's lock in a shared folder, by its lease on object storage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Protocol

from flows.config.request import RunRequest
from flows.errors import ConfigError, Failure
from flows.run.pool_runs import work_pool
from flows.studies.loading import Loader
from flows.studies.members import Member
from flows.studies.schedule import StageEvent, StudyOutcome, ignore
from flows.studies.walks import MemberWalk, StudyWalk
from storage.urls import is_remote

_GONE = Failure("broke", "its run has ended, and the store does not have it")


class MemberRuns(Protocol):
    """The members of one call at their workers: submit, wait, cancel."""

    def submit(self, requests: Mapping[str, RunRequest]) -> None: ...

    def ended(self) -> Iterator[tuple[str, Failure | None]]: ...

    def cancel(self) -> None: ...


def run_on_workers(
    members: Sequence[Member],
    loader: Loader,
    recorded_as: Path,
    place: str,
    *,
    on_change: Callable[[StageEvent], None] = ignore,
) -> StudyOutcome:
    """Run every member that is not built yet on the workers of a place, and return how each ended.

    place
        the name of a Prefect work pool, or the address of a Dask scheduler, such as tcp://host:8786.
    recorded_as, on_change
        see `run_members`; a stage is told of when the first member that needs it has ended.

    A flow run of an earlier call that goes on is taken over. A failed, cancelled or killed member fails
    alone. KeyboardInterrupt cancels the members that this call has submitted.
    Raises ConfigError, before anything is submitted, for a config that is wrong, without a server, and
    without the pool; StageError without a Dask scheduler; ConnectionError when the server does not answer.
    """
    for member in members:
        if member.until == "speed":
            raise ConfigError(f"member {member.name!r} measures the speed of a machine: run it without --on")
    study = StudyWalk(members, loader, recorded_as)
    progress = _Progress(study, loader, on_change)
    stopped = False
    with _runs(place) as runs, study.on_record():
        try:
            waiting = {walk.member.name: walk for walk in _in_turn(progress.missing())}
            runs.submit({name: progress.request(walk) for name, walk in waiting.items()})
            for name, failure in runs.ended():
                progress.end(waiting[name], failure)
        except KeyboardInterrupt:
            stopped = True
            runs.cancel()
        finally:
            study.leave({})
    return StudyOutcome(study.outcomes(), progress.made, stopped)


def _runs(place: str) -> AbstractContextManager[MemberRuns]:
    if "://" not in place:
        return work_pool(place)
    from flows.studies.dask_runs import dask_runs  # loads Dask

    return dask_runs(place)


@dataclass
class _Progress:
    """What the store has of the members, and what came in this call."""

    study: StudyWalk
    loader: Loader
    on_change: Callable[[StageEvent], None]
    made: dict[str, int] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)

    def missing(self) -> list[MemberWalk]:
        """The members that still need a stage, past all that is there."""
        self.study.advance({})
        for walk in self.study.members:
            self._known |= {made.name for made in walk.artifacts.values()}
        return self.study.missing

    def request(self, walk: MemberWalk) -> RunRequest:
        """What a worker is asked for. A member promotes no tag and notifies no one: its study tells."""
        config = self.loader.load(walk.member).config
        said = {"promote": config.promote, "run.notify": config.run.notify}
        silent = [f"{name}=null" for name, value in said.items() if value is not None]
        return RunRequest(
            config=walk.member.config.resolve(),
            overrides=(*walk.member.overrides, *silent),
            store=config.store,
            until=walk.member.until,
            study=None if is_remote(config.store) else walk.record.written(),
        )

    def end(self, walk: MemberWalk, failure: Failure | None) -> None:
        """Take what the ended run of a member has left in the store, and tell of what is new."""
        self.study.advance({}, [walk])
        for stage, made in walk.artifacts.items():
            name = made.name
            if name not in self._known:
                self._known.add(name)
                self.made[made.kind] = self.made.get(made.kind, 0) + 1
                self._tell(walk, stage, None)
        if walk.next is not None:
            # The message of a run names the stage.
            walk.failure = failure or _GONE.of(walk.next.stage.name)
            self._tell(walk, walk.next.stage.name, walk.failure)

    def _tell(self, walk: MemberWalk, stage: str, failure: Failure | None) -> None:
        self.on_change(StageEvent(stage, walk.member.name, True, failure, self.study.outcomes))


def _in_turn(walks: Sequence[MemberWalk]) -> Iterator[MemberWalk]:
    """Members that need different artifacts next, in turn: those of one kind would wait for each other."""
    groups: dict[str | None, list[MemberWalk]] = defaultdict(list)
    for walk in walks:
        groups[walk.next.known.name if walk.next else None].append(walk)
    return (walk for walk in chain.from_iterable(zip_longest(*groups.values())) if walk is not None)
