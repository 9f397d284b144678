"""Building one stage: in its own process, under its key's lock, up to the commit."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.config.devices import gpu_names, torch_device
from flows.config.sections import Processors
from flows.config.trained_on import VIEWS, view_record
from flows.plan.states import Planned
from flows.plan.views import SnapshotView, ViewSpec
from flows.provenance import chosen_threads, made_by
from flows.run.child import Reporter
from flows.run.processes import Progress, Started, start_process
from flows.stages.base import Stage, load_maker
from storage.devices import holding_devices
from storage.errors import StorageError
from storage.manifest import Identity
from storage.opening import open_store
from storage.store import Artifact, Store

log = logging.getLogger(__name__)


def make_in_process(
    planned: Planned,
    store: Store,
    artifacts: Mapping[str, Artifact],
    *,
    on_progress: Progress,
    again: bool = False,
    timeout_seconds: float | None = None,
    run: str | None = None,
    stop: threading.Event | None = None,
) -> Artifact:
    """Make a planned stage in a child process and return its artifact.

    `run` names the run in the stage's log; `stop` asks the stage to stop at a checkpoint.
    Raises what `Started.result` raises; a stage that another process made meanwhile is simply returned.
    """
    begun = begin_in_process(planned, store, artifacts, again=again, run=run)
    return begun.artifact(on_progress=on_progress, timeout_seconds=timeout_seconds, stop=stop)


@dataclass(frozen=True)
class Begun:
    """A stage that is being made in a child process."""

    planned: Planned
    store: Store
    process: Started

    def artifact(
        self,
        *,
        on_progress: Progress,
        timeout_seconds: float | None = None,
        stop: threading.Event | None = None,
    ) -> Artifact:
        """Follow it to its end; as `make_in_process`."""
        self.process.result(on_progress=on_progress, timeout_seconds=timeout_seconds, stop=stop)
        made = self.store.find(self.planned.stage.kind, self.planned.known.key)
        if made is None:
            raise StorageError(
                f"{self.planned.stage.name} was built but is not in {self.store}: did something else change "
                "the store?"
            )
        return made


def begin_in_process(
    planned: Planned,
    store: Store,
    artifacts: Mapping[str, Artifact],
    *,
    again: bool = False,
    run: str | None = None,
) -> Begun:
    """Begin to make a planned stage in a child process."""
    stage = planned.stage
    task = task_of(planned, store, artifacts, again=again, run=run)
    log_path = store.place.log_path_of(stage.kind, planned.known.key)
    started = start_process("flows.run.making:make", task, log_path=log_path, imports=_slow_imports(stage))
    return Begun(planned, store, started)


def task_of(
    planned: Planned,
    store: Store,
    artifacts: Mapping[str, Artifact],
    *,
    again: bool = False,
    run: str | None = None,
) -> dict[str, Any]:
    """What `make` takes, as JSON."""
    stage, identity = planned.stage, planned.known
    return {
        "store": str(store),
        "identity": identity.model_dump(mode="json"),
        "maker": stage.maker,
        "artifacts": {
            name: [artifacts[ref.stage].kind, artifacts[ref.stage].key] for name, ref in stage.inputs.items()
        },
        "views": {
            name: {"spec": asdict(ref.view), "root": str(ref.root)}
            for name, ref in stage.inputs.items()
            if ref.view is not None
        },
        "in_place": list(stage.in_place),
        "options": dict(stage.options),
        "processors": stage.processors and stage.processors.model_dump(),
        "again": again,
        "labels": {"run": run or "-", "artifact": identity.name},
    }


def _slow_imports(stage: Stage) -> list[str]:
    """What the stage's process would take seconds to import."""
    maker, _, _ = stage.maker.partition(":")
    return [maker] if stage.processors is None else [maker, "torch", "torch.optim", "torchvision"]


def make(task: dict[str, Any], reporter: Reporter) -> dict[str, str]:
    """The child's side: hold the lock, validate what the stage takes, call the maker, commit."""
    store = open_store(task["store"])
    identity = Identity.model_validate(task["identity"])
    with store.making(identity, again=task["again"]) as work:
        if work.made is not None:
            return {"key": work.made.key}
        log.info("building it here, as process %s of %s", os.getpid(), socket.gethostname())
        processors = None if task["processors"] is None else Processors.model_validate(task["processors"])
        artifacts = {
            name: _need(store, kind, key, in_place=name in task["in_place"])
            for name, (kind, key) in task["artifacts"].items()
        }
        views = {
            name: SnapshotView(artifacts[name], ViewSpec.from_json(view["spec"]), Path(view["root"]))
            for name, view in task["views"].items()
        }
        maker = load_maker(task["maker"])
        context = maker.context(
            identity.recipe,
            {**artifacts, **views},
            task["options"],
            work=work.path,
            reporter=reporter,
            name=identity.name,
            store=store,
            processors=processors,
            again=task["again"],
        )
        # Stages without processors load no torch.
        with holding_devices([] if processors is None else gpu_names(processors)):
            result = maker.make(context)
        sources = {name: artifact.name for name, artifact in artifacts.items()}
        taken = {
            name: view_record(
                each.spec.dataset, each.spec.split, each.snapshot.manifest, each.spec.min_height
            )
            for name, each in views.items()
        }
        if processors is None:
            provenance = made_by(None)
        else:
            provenance = made_by(chosen_threads(processors.threads))
            provenance["device"] = torch_device(processors.device).type
        provenance |= ({VIEWS: taken} if taken else {}) | dict(result.made_by)
        work.commit(
            result.content_digest,
            metrics=result.metrics,
            sources=sources,
            made_by=provenance,
            scratch=result.scratch,
            digests=result.file_digests,
        )
    return {"key": identity.key}


def _need(store: Store, kind: str, key: str, *, in_place: bool) -> Artifact:
    found = store.find_in_place(kind, key) if in_place else store.find(kind, key)
    if found is None:
        raise StorageError(
            f"the input {kind}/{key} is gone from {store}; run the same command again to rebuild it"
        )
    return found
