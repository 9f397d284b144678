"""Sweeps of a small config, with stages that are built in the test's process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from flows.errors import Failure, StageFailed
from flows.plan.states import Planned
from flows.run import making
from flows.run.records import RunRecord
from flows.studies import schedule
from flows.studies.grid import parse_axis
from flows.studies.loading import Loader
from flows.studies.members import Study
from flows.studies.schedule import Slots, StudyOutcome, ignore_progress, run_members
from flows.studies.sweeping import sweep_study
from storage.local import LocalStore
from storage.store import Artifact, Inspection

Make = Callable[[Planned, LocalStore, Mapping[str, Artifact]], Artifact]


class Watched:
    """A reporter for stages that are built in this process."""

    def progress(self, done: int, total: int, **metrics: float) -> None:
        """Discard progress."""

    def should_stop(self) -> bool:
        return False


class MakeHere:
    """Makes stages in this process, one after the other, and counts them; some may be made to fail."""

    def __init__(self, fail_seed: int | None = None) -> None:
        self.made: Counter[str] = Counter()
        self.fail_seed = fail_seed
        self.lock = threading.Lock()

    def __call__(self, planned: Planned, store: LocalStore, artifacts: Mapping[str, Artifact]) -> Artifact:
        stage = planned.stage
        with self.lock:
            if stage.kind == "reid" and stage.recipe["reid"]["seed"] == self.fail_seed:
                assert planned.identity is not None
                log = store.place.log_path_of(stage.kind, planned.identity.key)
                raise StageFailed(Failure("refused", "the loss is nan", str(log)))
            self.made[stage.kind] += 1
            return making.make_in_process(planned, store, artifacts, on_progress=ignore_progress)


def study_of(config: Path, *settings: str) -> Study:
    return sweep_study(config, [parse_axis(text) for text in settings])


@contextmanager
def made_by(make: Make) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "make_in_process", lambda *stage, **_: make(*stage))
        yield


def build(study: Study, make: Make | None, store: Path | None = None, slots: int = 2) -> StudyOutcome:
    loader = Loader(None if store is None else str(store))
    with nullcontext() if make is None else made_by(make):
        return run_members(list(study.members.values()), loader, study.path, slots=Slots([None] * slots))


def sweep(config: Path, settings: list[str], make: MakeHere) -> StudyOutcome:
    return build(study_of(config, *settings), make)


def count_looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each artifact is looked for from now on; on object storage, a look is three requests."""
    looks: Counter[str] = Counter()
    inspect = LocalStore.inspect

    def counted(store: LocalStore, kind: str, key: str) -> Inspection:
        looks[f"{kind}/{key}"] += 1
        return inspect(store, kind, key)

    monkeypatch.setattr(LocalStore, "inspect", counted)
    return looks


def count_record_writes(monkeypatch: pytest.MonkeyPatch) -> list[RunRecord]:
    """The record as often as it is written from now on; each time it is flushed to the disk."""
    writes: list[RunRecord] = []
    write = RunRecord.write

    def counted(record: RunRecord) -> None:
        writes.append(record)
        write(record)

    monkeypatch.setattr(RunRecord, "write", counted)
    return writes
