"""Build the stages of many configs over one store: shared stages once, and a failure stops only its member.

Each member advances past its cached stages; its first missing stage is built in parallel with those of other
members, and members that need the same artifact wait for the same build.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flows.errors import RETRY_DELAYS, Failure, Interrupted, failure_of, failure_or_bug
from flows.plan.readiness import check_ready
from flows.plan.states import Planned, identity_of, resolve
from flows.run.making import make_in_process
from flows.studies.loading import Loaded, Loader
from flows.studies.members import Member
from flows.studies.record import StudyRecord
from storage.store import Artifact
from storage.tags import stays

log = logging.getLogger(__name__)

_NO_FORCE: frozenset[str] = frozenset()
_STOPPED = Failure("interrupted", "the study was stopped")


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


@dataclass
class StudyOutcome:
    """All members in order, the number of stages built by kind, and whether the study was stopped."""

    members: list[MemberOutcome]
    made: dict[str, int]
    stopped: bool = False


@dataclass(frozen=True)
class Change:
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


def ignore(change: object) -> None:
    """For callers that only want the outcome."""


def run_members(
    members: Sequence[Member],
    loader: Loader,
    recorded_as: Path,
    *,
    slots: Sequence[str | None] = (None,),
    threads: int | None = None,
    on_change: Callable[[Change], None] = ignore,
) -> StudyOutcome:
    """Build the stages of all members, and return how each member ended.

    recorded_as
        the study or config that the store's record of runs names.
    slots
        one stage at a time per slot; a slot that names a device (`cuda:1`) runs its stages there, unless the
        config names a device.
    threads
        threads per stage, unless the config sets them.
    on_change
        called whenever a stage begins or ends.

    KeyboardInterrupt asks running stages to stop at a checkpoint, waits for them, and returns what has been
    built so far. Raises ConfigError, before anything is built, if a member's config is wrong.
    """
    study = StudyWalk(members, loader, recorded_as)
    stop = threading.Event()

    def changed(stage: str, member: str, ended: bool, failure: Failure | None) -> None:
        on_change(Change(stage, member, ended, failure, study.outcomes))

    makings = _Makings(list(slots), threads, stop, changed)
    stopped = False
    with study.on_record(), ThreadPoolExecutor(len(slots), thread_name_prefix="study") as pool:
        try:
            while makings.begin(study.members, pool):
                makings.wait()
        except KeyboardInterrupt:
            stopped = True
        finally:
            # However the study ends, no stage keeps running: all are asked to stop at a checkpoint.
            stop.set()
            pool.shutdown(cancel_futures=True)
            makings.collect()
            for walk in study.members:
                walk.leave(makings.ended)
            makings.tell_ended()
    return StudyOutcome(study.outcomes(), makings.made, stopped)


class StudyWalk:
    """All members of a study on their way, and its record in each of their stores."""

    def __init__(self, members: Sequence[Member], loader: Loader, recorded_as: Path) -> None:
        self._records: dict[str, StudyRecord] = {}
        self.members: list[MemberWalk] = []
        shared: dict[str, dict[str, Artifact]] = defaultdict(dict)
        for member in members:
            loaded = loader.load(member)
            place = str(loaded.store)
            record = self._records.setdefault(place, StudyRecord(recorded_as, loaded.store))
            self.members.append(MemberWalk(member, loaded, record, shared[place]))

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

    def begin(self, walks: Sequence[MemberWalk], pool: ThreadPoolExecutor) -> bool:
        """Start what members need next while slots are free. False if nothing is running."""
        wanted = [(walk, walk.wanted(self.ended)) for walk in walks]
        self.tell_ended()
        for walk, planned in wanted:
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


class MemberWalk:
    """The progress of one member through its stages: what is cached, and what is to be built next."""

    def __init__(
        self, member: Member, loaded: Loaded, record: StudyRecord, shared: dict[str, Artifact]
    ) -> None:
        self.member = member
        self.record = record
        self._shared = shared
        """Artifacts that the members of this store have found, as `kind/key`: none is looked for twice."""
        self.store = loaded.store
        self.artifacts: dict[str, Artifact] = {}
        self.failure: Failure | None = None
        self._stages = loaded.stages
        self.config = loaded.config
        self._takes_datasets = any(stage.kind == "ingest" for stage in loaded.stages)
        self._checked = False
        self.next: Planned | None = None
        """What `advance` has found to be built next; None if the member is done or has failed."""

    @property
    def outcome(self) -> MemberOutcome:
        return MemberOutcome(self.member, dict(self.artifacts), self.failure)

    def wanted(self, ended: Mapping[str, Failure | None]) -> Planned | None:
        """As `advance`, but the store is not asked again for what is known to be missing.

        Whoever builds it looks for it first.
        """
        if self.next is not None and self.next.known.name not in ended:
            return self.next
        return self.advance(ended)

    def advance(self, ended: Mapping[str, Failure | None]) -> Planned | None:
        """The next stage to build, past all cached ones; None if the member is done or has failed."""
        self.next = None
        while self.failure is None and len(self.artifacts) < len(self._stages):
            stage = self._stages[len(self.artifacts)]
            try:
                if stage.kind != "ingest" and self._takes_datasets and not self._checked:
                    check_ready(self.config, self._stages, self.artifacts, self.store)
                    self._checked = True
                found = self._shared.get(identity_of(stage, self.artifacts, self.store).name)
                if found is not None:
                    self.artifacts[stage.name] = found
                    continue
                planned = resolve(stage, self.store, self.artifacts, _NO_FORCE, explain=False)
            except Exception as error:
                self.failure = logged(error).of(stage.name)
                return None
            if planned.artifact is not None:
                self.record.uses(planned)
                if stays(self.store, planned.artifact.kind, planned.artifact.key):
                    self.artifacts[stage.name] = self._shared[planned.known.name] = planned.artifact
                continue
            failure = ended.get(planned.known.name)
            if failure is None:
                self.next = planned
                return planned
            self.failure = failure.of(stage.name)
        return None

    def leave(self, ended: Mapping[str, Failure | None]) -> None:
        """Take what has been built so far; a member that still needs a stage was stopped before it."""
        planned = self.advance(ended)
        if planned is not None:
            self.failure = _STOPPED.of(planned.stage.name)


def ignore_progress(done: int, total: int, **metrics: float) -> None:
    """A study reports stages, not steps."""


def _on_slot(planned: Planned, slot: str | None, threads: int | None) -> Planned:
    """The stage on the slot's device, with its share of the threads; neither is part of its key."""
    processors = planned.stage.processors
    if processors is None:
        return planned
    if slot is not None and processors.device == "auto":
        # A slot is one device: the next is another member's.
        processors = processors.model_copy(update={"device": slot, "devices": 1})
    if processors.threads is None and not planned.stage.alone:
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
            log.warning("%s: %s; retrying in %.0f s", name, error, delay)
        if stop.wait(delay):
            raise Interrupted(_STOPPED.message)
    return once()


def _failure(future: Future[Artifact]) -> Failure | None:
    """How a build failed; None if it succeeded."""
    if future.cancelled():
        return _STOPPED
    error = future.exception()
    return None if error is None else logged(error)


def logged(error: BaseException) -> Failure:
    """How an error ends a member. The traceback of an internal error goes to the log."""
    if failure_of(error) is None:
        log.error("a member of the study failed with an internal error", exc_info=error)
    return failure_or_bug(error)
