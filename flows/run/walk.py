"""A run's way through its stages: skips what is cached and yields what must be built. No Prefect."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from flows.config.loading import load_config, store_of
from flows.config.models import Config
from flows.config.raw import of_results
from flows.config.request import RunRequest
from flows.config.sections import Kind
from flows.console import told
from flows.errors import ConfigError, failure_or_bug
from flows.plan.readiness import check_ready
from flows.plan.states import Planned, resolve
from flows.run.making import Begun, begin_in_process
from flows.run.planning import requested_stages
from flows.run.records import RunRecord, heartbeat, new_record_path
from flows.stages.base import Stage
from storage.opening import open_store
from storage.store import Artifact, Store
from storage.tags import stays


@dataclass
class Walk:
    """The stages in order, each resolved when those before it are made; the record says how far it is."""

    config: Config
    store: Store
    stages: Sequence[Stage]
    again: frozenset[str]
    record: RunRecord
    only: tuple[Kind, ...] = ()
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    """Of the stages so far, by their names."""
    started: float = field(default_factory=time.monotonic)
    _position: int = 0
    _checked: bool = False
    _ahead: Future[Planned | None] | None = None
    _begun: Begun | None = None

    @classmethod
    def of(cls, request: RunRequest, record: RunRecord, planned: Store | None = None) -> Walk:
        """From the first stage on. Raises ConfigError for a config or a selection that is wrong.

        `planned`: the store, if this process has planned the run and so read what it had to verify.
        """
        config = load_config(request.config, request.overrides, store=request.store)
        rehash = request.verify and planned is None
        stages, again = requested_stages(config, request, rehash=rehash)
        store = planned or open_store(config.store, verify_first=request.verify)
        return cls(config, store, stages, again, record, request.only)

    def next(self) -> Planned | None:
        """The next stage that is to be made, which the record then names as running; None at the end.

        Raises what `check_ready` raises, before the first stage that uses a dataset.
        """
        if self._ahead is None:
            return self._next()
        ahead, self._ahead = self._ahead, None
        return ahead.result()

    def made(self, planned: Planned, artifact: Artifact) -> None:
        self.artifacts[planned.stage.name] = artifact
        self.record.made(artifact)

    def refusal(self, planned: Planned) -> str | None:
        """Why this run may not make the stage."""
        if not self.only or planned.stage.kind in self.only:
            return None
        return f"{planned.reason}; this run builds only {', '.join(self.only)}"

    @contextmanager
    def head_start(self) -> Iterator[None]:
        """Start the first stage to be built while the block starts what will follow it.

        `begin` hands it over; if nothing took it by the end of the block, it is stopped at a checkpoint.
        """
        self._ahead = Future()
        try:
            planned = self._next()
        except Exception as error:
            # For `next`, whose caller says it.
            self._ahead.set_exception(error)
        else:
            self._ahead.set_result(planned)
            if planned is not None and self.refusal(planned) is None:
                self._begun = self.begin(planned)
        try:
            yield
        finally:
            if self._begun is not None:
                self._begun.process.stop()

    def begin(self, planned: Planned) -> Begun:
        """Begin to make a stage, or take over what `head_start` has begun."""
        begun, self._begun = self._begun, None
        if begun is not None and begun.planned is planned:
            return begun
        again = planned.stage.name in self.again
        return begin_in_process(planned, self.store, self.artifacts, again=again, run=self.record.name)

    def _next(self) -> Planned | None:
        for stage in self.stages[self._position :]:
            self._position += 1
            if stage.kind != "ingest" and not self._checked:
                check_ready(self.config, self.stages, self.artifacts, self.store)
                self._checked = True
            planned = resolve_and_record(stage, self.store, self.artifacts, self.again, self.record)
            tell_pinned(planned)
            if planned.artifact is None:
                key = None if planned.identity is None else planned.identity.key
                self.record.begin(
                    planned, None if key is None else self.store.place.log_path_of(stage.kind, key)
                )
                return planned
            self.artifacts[stage.name] = planned.artifact
        return None


def resolve_and_record(
    stage: Stage,
    store: Store,
    artifacts: dict[str, Artifact],
    again: frozenset[str],
    record: RunRecord,
) -> Planned:
    """As `resolve`, and record a cached artifact, so that no garbage collection deletes it any more."""
    while (planned := resolve(stage, store, artifacts, again)).artifact is not None:
        record.cached(planned)
        if stays(store, planned.artifact.kind, planned.artifact.key):
            break
        record.stages.pop()
    return planned


def tell_pinned(planned: Planned) -> None:
    """Say which trained model stands in for a stage, since when, and how much its data has grown."""
    if planned.pinned is not None:
        told.info("%s %s", planned.stage.name, planned.pinned)


def new_record(request: RunRequest) -> RunRecord:
    """An empty record of a run, with a free name in the config's store.

    The rest of the config may be wrong, which the record then says. Raises ConfigError where not even the
    store can be told, and on a machine that does not see the store of the study that asks.
    """
    store = open_store(store_of(request.config, request.overrides, store=request.store))
    if request.study is not None and not request.study.exists():
        raise ConfigError(
            f"{socket.gethostname()} does not see the study's store {store}: mount that folder on every "
            "machine with a worker, or use an object store (--store s3://BUCKET/PREFIX)"
        )
    overrides = of_results(request.overrides)
    return RunRecord(new_record_path(store.root), str(request.config), overrides=overrides)


@contextmanager
def kept(record: RunRecord) -> Iterator[None]:
    """Keep the record up to date in the block, and close it at the end with the error if there is one."""
    with heartbeat(record):
        try:
            yield
        except Exception as error:
            record.failure = record.failure or failure_or_bug(error)
            raise
        finally:
            record.end()
