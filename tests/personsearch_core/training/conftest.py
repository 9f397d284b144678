"""A detector that two processes of this machine have trained, stopped once: made once per session."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from personsearch_core.data.sampling import TrainingSet
from personsearch_core.training import distributed, torchrun
from personsearch_core.training.detector import train_detector
from personsearch_core.training.detector_process import DetectorResult
from personsearch_core.training.loop import LoopSettings, TrainingStopped
from storage.locks import exclusive
from tests.conftest import shared_folder
from tests.personsearch_core.scene_files import TINY
from tests.personsearch_core.training.detector_trainings import recipe, write_entries
from tests.personsearch_core.training.slow_ranks import SHARE

RECIPE = recipe(TINY.model_copy(update={"norm": "group"}), steps=16, batch_size=3, validate_every_epochs=100)
"""An odd batch gives the processes unequal shares; validated at the end alone."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Each process computes with as many threads wherever it is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class TrainedByTwo:
    """How the training went, in its folder; `first` has its checkpoint after two steps."""

    folder: Path
    first: Path
    entries: list[TrainingSet]
    stopped: str
    steps: tuple[int, int]
    """Of the newest checkpoint, when it stopped and at the end."""
    seen: list[int]
    """Steps that progress was reported of."""
    listening: set[str]
    """Addresses at which its processes could be reached."""
    errors: str
    result: DetectorResult


@pytest.fixture(scope="session")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> TrainedByTwo:
    """Read it only. One for all workers of the session: whichever asks first makes it, and others wait."""
    folder = shared_folder(tmp_path_factory) / "trained_by_two"
    kept = folder / "trained.pickle"
    with exclusive(folder.with_suffix(".lock"), what="a training by two processes"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_train(folder)))
    trained: TrainedByTwo = pickle.loads(kept.read_bytes())
    return trained


def _train(folder: Path) -> TrainedByTwo:
    entries = write_entries(folder / "scenes")
    checkpoints, first = folder / "two" / "checkpoints", folder / "first"
    first.mkdir()
    seen: list[int] = []
    listening: set[str] = set()

    def watch(done: int, total: int, **_: float) -> None:
        seen.append(done)
        for process in psutil.Process().children(recursive=True) if done % 4 == 1 else ():
            with suppress(psutil.Error):
                sockets = process.net_connections("inet")
                listening.update(each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN)

    def has_checkpoint() -> bool:
        if not any(first.iterdir()) and (found := sorted(checkpoints.glob("step-*.pt"))):
            for name in (found[0].name, f"{found[0].name}.sha256"):
                (first / name).hardlink_to(checkpoints / name)
        return any(first.iterdir())

    def train(should_stop: bool) -> DetectorResult:
        return train_detector(
            RECIPE, entries, entries[0].scenes[:3], folder / "two", device="cpu", devices=2, progress=watch,
            settings=LoopSettings(checkpoint_steps=2, progress_seconds=0.0),
            should_stop=has_checkpoint if should_stop else lambda: False,
        )  # fmt: skip

    def newest() -> int:
        return max(int(file.stem.removeprefix("step-")) for file in checkpoints.glob("*.pt"))

    with pytest.MonkeyPatch.context() as patch, one_thread(), _errors_to(folder / "errors"):
        patch.setattr(torchrun, "POLL_SECONDS", 0.02)
        patch.setattr(distributed, "SHARE", SHARE)
        with pytest.raises(TrainingStopped) as stopped:
            train(should_stop=True)
        stopped_at = newest()
        result = train(should_stop=False)
    return TrainedByTwo(
        folder / "two", first, entries, str(stopped.value), (stopped_at, newest()), seen, listening,
        (folder / "errors").read_text(), result,
    )  # fmt: skip


@contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """Have what this process starts write its errors to a file."""
    kept = os.dup(2)
    try:
        with path.open("wb") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
