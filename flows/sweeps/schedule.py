"""Making the stages of many configs over one store: what they share is made once, what fails stops its own.

Every member is walked as far as it is cached; the first stage that is not is made, side by side with those of
other members, and members that need the same artifact wait for one making.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flows.config import load_config
from flows.errors import Interrupted, StageBroke, StageDied, explain_os_error
from flows.making import make_in_process
from flows.plan import Planned, Selection, resolve, select
from flows.stages.building import build_stages
from flows.sweeps.grid import Member
from storage.artifacts import Artifact, LocalStore
from storage.opening import open_store

log = logging.getLogger(__name__)

Make = Callable[[Planned, LocalStore, Mapping[str, Artifact]], Artifact]
Key = tuple[str, str]
_NO_FORCE: frozenset[str] = frozenset()


@dataclass
class MemberOutcome:
    """How one member ended: its artifacts by stage, or the message of what failed."""

    member: Member
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    error: str | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of its first evaluation; empty where it has none."""
        for name, artifact in self.artifacts.items():
            if name.partition(":")[0] == "evaluation":
                return dict(artifact.manifest.metrics)
        return {}


@dataclass
class SweepOutcome:
    """All members in the grid's order, and how many stages of each kind were made."""

    members: list[MemberOutcome]
    made: dict[str, int]


def run_sweep(
    config_path: Path,
    members: Sequence[Member],
    *,
    store: str | None = None,
    slots: Sequence[str | None] = (None,),
    threads: int | None = None,
    until: str = "evaluation",
    make: Make | None = None,
    on_change: Callable[[str], None] = log.info,
) -> SweepOutcome:
    """Make everything that the members ask for up to `until`, and return how each of them stands.

    slots
        as many stages are made at once; a slot that names a device (`cuda:1`) is where its stage computes.
    threads
        of each stage, where the config does not say.
    make
        how a stage is made; by default in a process of its own.
    on_change
        is told, in words, about every stage that is begun and that has ended.

    Raises ConfigError, before anything is made, for a member whose config is wrong.
    """
    walks = [_Walk(member, config_path, store, until) for member in members]
    ended: dict[Key, str | None] = {}
    running: dict[Future[Artifact], _Running] = {}
    free = list(slots)
    made: dict[str, int] = {}
    with ThreadPoolExecutor(len(slots), thread_name_prefix="sweep") as pool:
        while True:
            for walk in walks:
                planned = walk.advance(ended)
                if planned is None or not free or any(one.key == _key(planned) for one in running.values()):
                    continue
                started = _Running(_key(planned), free.pop(0))
                on_change(f"making {planned.stage.name} of {walk.member.name}")
                ready = _with_options(planned, started.slot, threads)
                call = make or walk.make_in_process
                running[pool.submit(call, ready, walk.store, dict(walk.artifacts))] = started
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                finished = running.pop(future)
                free.append(finished.slot)
                ended[finished.key] = error = _failure(future)
                made[finished.key[0]] = made.get(finished.key[0], 0) + (error is None)
                on_change(f"{'/'.join(finished.key)[:24]}: {error or 'made'}")
    return SweepOutcome([MemberOutcome(walk.member, walk.artifacts, walk.error) for walk in walks], made)


@dataclass(frozen=True)
class _Running:
    key: Key
    slot: str | None


class _Walk:
    """One member's way through its stages."""

    def __init__(self, member: Member, config_path: Path, store: str | None, until: str) -> None:
        config = load_config(config_path, member.overrides, store=store)
        self.member = member
        self.store = open_store(config.store)
        self.artifacts: dict[str, Artifact] = {}
        self.error: str | None = None
        hours = config.run.stage_timeout_hours
        self._timeout = None if hours is None else 3600 * hours
        self._stages, _ = select(build_stages(config), Selection(until=until))

    def advance(self, ended: Mapping[Key, str | None]) -> Planned | None:
        """The next stage to be made, past all that are there; None when the member is done or has failed."""
        while self.error is None and len(self.artifacts) < len(self._stages):
            stage = self._stages[len(self.artifacts)]
            planned = resolve(stage, self.store, self.artifacts, _NO_FORCE)
            if planned.artifact is None:
                failure = ended.get(_key(planned))
                if failure is None:
                    return planned
                self.error = f"{stage.name}: {failure}"
            else:
                self.artifacts[stage.name] = planned.artifact
        return None

    def make_in_process(
        self, planned: Planned, store: LocalStore, artifacts: Mapping[str, Artifact]
    ) -> Artifact:
        return make_in_process(
            planned, store, artifacts, on_progress=ignore_progress, timeout_seconds=self._timeout
        )


def ignore_progress(done: int, total: int, **metrics: float) -> None:
    """A sweep tells of stages, not of steps."""


def _key(planned: Planned) -> Key:
    if planned.identity is None:
        raise ValueError(f"stage {planned.stage.name} stands before its inputs")
    return planned.identity.kind, planned.identity.key


def _with_options(planned: Planned, slot: str | None, threads: int | None) -> Planned:
    """The stage on the slot's device, with its share of the threads; neither is part of its key."""
    options = dict(planned.stage.options)
    if slot is not None and "device" in options:
        options["device"] = slot
        if "devices" in options:
            # A slot is one device: the next is another member's.
            options["devices"] = 1
    if threads is not None and options.get("threads", 0) is None:
        options["threads"] = threads
    return replace(planned, stage=replace(planned.stage, options=options))


def _failure(future: Future[Artifact]) -> str | None:
    """The message of what a making raised; errors of this program itself are raised again."""
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, OSError):
        return explain_os_error(error)
    if isinstance(error, ValueError | StageBroke | StageDied | Interrupted):
        return str(error)
    raise error
