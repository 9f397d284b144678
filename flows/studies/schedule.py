"""Build the stages of many configs over one store: shared stages once, and a failure stops only its member.

The first missing stage of each member is built in parallel with those of other members, and members that need
the same artifact wait for the same build.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from flows.errors import RETRY_DELAYS, Failure, Interrupted, failure_of
from flows.plan.states import Planned
from flows.run.making import make_in_process
from flows.studies.loading import Loader
from flows.studies.members import Member
from flows.studies.walks import STOPPED, MemberOutcome, MemberWalk, StudyWalk, logged
from storage.store import Artifact

log = logging.getLogger(__name__)


@dataclass
class StudyOutcome:
    """All members in order, the number of stages built by kind, and whether the study was stopped."""

    members: list[MemberOutcome]
    made: dict[str, int]
    stopped: bool = False


@dataclass(frozen=True)
class StageEvent:
    """A stage of a member has begun or, with `ended`, ended; `members()` is how all of them stand."""

    stage: str
    member: str
    ended: bool
    failure: Failure | None
    members: Callable[[], list[MemberOutcome]]

    def __str__(self) -> str:
        if not self.ended:
            return f"building {self.stage} of {self.member}"
        return f"{self.stage} of {self.member}: {self.failure or 'built'}"


@dataclass(frozen=True)
class Slots:
    """Where stages are built at once."""

    devices: Sequence[str | None] = (None,)
    """One stage at a time per entry; on this device (`cuda:1`), unless its config names one."""
    threads: int | None = None
    """Per stage, unless its config sets them."""


ONE_SLOT = Slots()


def ignore(change: object) -> None:
    """For callers that only want the outcome."""


def run_members(
    members: Sequence[Member],
    loader: Loader,
    recorded_as: Path,
    *,
    slots: Slots = ONE_SLOT,
    on_change: Callable[[StageEvent], None] = ignore,
) -> StudyOutcome:
    """Build the stages of all members, and return how each member ended.

    recorded_as
        the study or config that the store's record of runs names.
    on_change
        called whenever a stage begins or ends.

    KeyboardInterrupt asks running stages to stop at a checkpoint, waits for them, and returns what has been
    built so far. Raises ConfigError, before anything is built, if a member's config is wrong.
    """
    study = StudyWalk(members, loader, recorded_as)
    stop = threading.Event()

    def changed(stage: str, member: str, ended: bool, failure: Failure | None) -> None:
        on_change(StageEvent(stage, member, ended, failure, study.outcomes))

    makings = _Makings(list(slots.devices), slots.threads, stop, changed)
    stopped = False
    with study.on_record(), ThreadPoolExecutor(len(slots.devices), thread_name_prefix="study") as pool:
        try:
            while makings.begin(study, pool):
                makings.wait()
        except KeyboardInterrupt:
            stopped = True
        finally:
            # However the study ends, no stage keeps running: all are asked to stop at a checkpoint.
            stop.set()
            pool.shutdown(cancel_futures=True)
            makings.collect()
            study.leave(makings.ended)
            makings.tell_ended()
    return StudyOutcome(study.outcomes(), makings.made, stopped)


@dataclass(frozen=True)
class _Running:
    planned: Planned
    walk: MemberWalk
    slot: str | None


@dataclass
class _Makings:
    """The stages that are being built, one per slot, and how earlier ones ended. free: the slots that are."""

    free: list[str | None]
    threads: int | None
    stop: threading.Event
    on_change: Callable[[str, str, bool, Failure | None], None]
    ended: dict[str, Failure | None] = field(default_factory=dict)
    """By the artifact, `kind/key`."""
    made: dict[str, int] = field(default_factory=dict)
    _untold: list[tuple[str, str, Failure | None]] = field(default_factory=list)
    _running: dict[Future[Artifact], _Running] = field(default_factory=dict)

    def begin(self, study: StudyWalk, pool: ThreadPoolExecutor) -> bool:
        """Start what members need next while slots are free. False if nothing is running."""
        study.advance(self.ended)
        self.tell_ended()
        for walk in study.members:
            planned = walk.next
            if planned is None or not self.free:
                continue
            running = [*self._running.values()]
            if any(one.planned.known == planned.known for one in running):
                continue
            if running and (planned.stage.alone or running[0].planned.stage.alone):
                continue
            self._start(walk, planned, pool)
        return bool(self._running)

    def _start(self, walk: MemberWalk, planned: Planned, pool: ThreadPoolExecutor) -> None:
        started = _Running(planned, walk, self.free.pop(0))
        self.on_change(planned.stage.name, walk.member.name, False, None)
        log_path = walk.store.place.log_path_of(planned.stage.kind, planned.known.key)
        walk.record.begin(planned, walk.member.name, log_path)
        ready = _on_slot(planned, started.slot, self.threads)
        once = partial(
            make_in_process,
            ready,
            walk.store,
            dict(walk.artifacts),
            on_progress=ignore_progress,
            timeout_seconds=walk.config.run.stage_timeout_seconds,
            stop=self.stop,
        )
        self._running[pool.submit(make_with_retries, once, self.stop, planned.stage.name)] = started

    def tell_ended(self) -> None:
        """Report the stages that have ended, once the members know their artifacts."""
        while self._untold:
            stage, member, failure = self._untold.pop(0)
            self.on_change(stage, member, True, failure)

    def wait(self) -> None:
        """Wait until a stage has ended."""
        wait(self._running, return_when=FIRST_COMPLETED)
        self.collect()

    def collect(self) -> None:
        """Record all stages that have ended."""
        for future in [one for one in self._running if one.done()]:
            finished = self._running.pop(future)
            self.free.append(finished.slot)
            stage, name = finished.planned.stage, finished.planned.known.name
            self.ended[name] = failure = _failure(future)
            if failure is None:
                self.made[stage.kind] = self.made.get(stage.kind, 0) + 1
                finished.walk.record.made(future.result())
            else:
                finished.walk.record.failed(name, failure.of(stage.name))
            self._untold.append((stage.name, finished.walk.member.name, failure))


def ignore_progress(done: int, total: int, **metrics: float) -> None:
    """A study reports stages, not steps."""


def _on_slot(planned: Planned, slot: str | None, threads: int | None) -> Planned:
    """The stage on the slot's device, with its share of the threads; neither is part of its key.

    A stage that runs alone has what its config names.
    """
    processors = planned.stage.processors
    if processors is None or planned.stage.alone:
        return planned
    if slot is not None and processors.device == "auto":
        # A slot is one device: the next is another member's.
        processors = processors.model_copy(update={"device": slot, "devices": 1})
    if processors.threads is None:
        processors = processors.model_copy(update={"threads": threads})
    return replace(planned, stage=replace(planned.stage, processors=processors))


def make_with_retries(once: Callable[[], Artifact], stop: threading.Event, name: str) -> Artifact:
    for delay in RETRY_DELAYS:
        try:
            return once()
        except Exception as error:
            failure = failure_of(error)
            if failure is None or not failure.is_worth_retrying:
                raise
            log.warning("%s; retrying in %.0f s", failure.of(name), delay)
        if stop.wait(delay):
            raise Interrupted(STOPPED.message)
    return once()


def _failure(future: Future[Artifact]) -> Failure | None:
    """How a build failed; None if it succeeded."""
    if future.cancelled():
        return STOPPED
    error = future.exception()
    return None if error is None else logged(error)
