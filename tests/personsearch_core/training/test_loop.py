"""The training loop: the same bytes whatever the interruptions, and clear ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from personsearch_core.training.loop import (
    LoopSettings,
    Metrics,
    NonFiniteError,
    TrainingStopped,
    _read,
    run_loop,
)
from personsearch_core.training.metrics_log import finish_history

TOTAL = 12


class Killed(Exception):
    """Stands for a kill: leaves the loop without any of its own endings."""


class Regression:
    """A little model whose batches are functions of the step."""

    def __init__(self, work_dir: Path) -> None:
        torch.manual_seed(0)
        self.work_dir = work_dir
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def step(self, step: int) -> Mapping[str, Tensor | float]:
        batch = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (self.model(batch) - batch.sum(dim=1, keepdim=True)).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": loss, "batch_mean": float(batch.mean())}

    def run(self, step: Callable[[int], Mapping[str, Tensor | float]] | None = None, **options: Any) -> int:
        settings = LoopSettings(checkpoint_steps=5, tensorboard_steps=1000)
        return run_loop(
            step or self.step,
            total_steps=TOTAL,
            state={"model": self.model, "optimiser": self.optimiser},
            work_dir=self.work_dir,
            describe_batch=lambda step: f"rows of step {step}",
            settings=settings,
            **options,
        )

    def outcome(self) -> tuple[list[bytes], bytes]:
        finish_history(self.work_dir)
        weights = [value.numpy().tobytes() for value in self.model.state_dict().values()]
        return weights, (self.work_dir / "history.parquet").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], bytes]:
    run = Regression(tmp_path_factory.mktemp("whole"))
    assert run.run() == TOTAL
    return run.outcome()


@pytest.mark.parametrize("killed_at", range(TOTAL))
def test_killed_and_resumed_is_byte_identical(
    tmp_path: Path, killed_at: int, uninterrupted: tuple[list[bytes], bytes]
) -> None:
    first = Regression(tmp_path)

    def dying_step(step: int) -> Mapping[str, Tensor | float]:
        if step == killed_at:
            raise Killed
        return first.step(step)

    with pytest.raises(Killed):
        first.run(dying_step)
    second = Regression(tmp_path)
    assert second.run() == TOTAL
    assert second.outcome() == uninterrupted


def test_stop_makes_a_checkpoint(tmp_path: Path, uninterrupted: tuple[list[bytes], bytes]) -> None:
    first = Regression(tmp_path)
    asked = iter([False] * 7)
    with pytest.raises(TrainingStopped, match="after 7 of 12 steps"):
        first.run(should_stop=lambda: next(asked, True))
    started: list[int] = []
    second = Regression(tmp_path)

    def recording_step(step: int) -> Mapping[str, Tensor | float]:
        started.append(step)
        return second.step(step)

    second.run(recording_step)
    assert started == [7, 8, 9, 10, 11]
    assert second.outcome() == uninterrupted


def test_history_has_every_step_once(tmp_path: Path) -> None:
    run = Regression(tmp_path)
    run.run(after_step=lambda done: {"validation": done / TOTAL} if done % 4 == 0 else {})
    finish_history(tmp_path)
    table = pq.read_table(tmp_path / "history.parquet")
    assert table["step"].to_pylist() == list(range(TOTAL))
    assert table["validation"].to_pylist()[3] == pytest.approx(4 / TOTAL)
    assert table["validation"].null_count == 9


@pytest.mark.parametrize("name", ["loss", "batch_mean"])
def test_bad_metric_names_step_and_batch(tmp_path: Path, name: str) -> None:
    run = Regression(tmp_path)

    def bad_step(step: int) -> Mapping[str, Tensor | float]:
        return {**run.step(step), **({name: float("nan")} if step == 7 else {})}

    with pytest.raises(NonFiniteError, match=rf"{name} is nan at step 7.*rows of step 7"):
        run.run(bad_step, must_be_finite=("loss", "batch_mean"))
    again = Regression(tmp_path)
    assert again.run() == TOTAL


def test_finishes_early_when_told(tmp_path: Path) -> None:
    run = Regression(tmp_path)
    done: list[int] = []

    def after_step(count: int) -> Mapping[str, float]:
        done.append(count)
        return {}

    assert run.run(after_step=after_step, is_finished=lambda: len(done) == 3) == 3


def test_checkpoints_without_their_log_are_not_resumed(
    tmp_path: Path, uninterrupted: tuple[list[bytes], bytes]
) -> None:
    first = Regression(tmp_path)

    def step(number: int) -> Mapping[str, Tensor | float]:
        if number == 7:
            raise Killed
        return first.step(number)

    with pytest.raises(Killed):
        first.run(step)
    (tmp_path / "history.jsonl").write_bytes(b"")
    second = Regression(tmp_path)
    assert second.run() == TOTAL
    assert second.outcome() == uninterrupted


@pytest.mark.parametrize("damage", ["both checkpoints", "log"])
def test_after_damage_new_checkpoints_are_kept(tmp_path: Path, damage: str) -> None:
    """Starting over from 0, where the refused checkpoints have the higher numbers."""
    assert Regression(tmp_path).run() == TOTAL
    if damage == "log":
        (tmp_path / "history.jsonl").write_bytes(b"")
    else:
        for file in (tmp_path / "checkpoints").glob("*.pt"):
            file.write_bytes(b"damaged")
    again = Regression(tmp_path)
    asked = iter([False] * 7)
    with pytest.raises(TrainingStopped, match="after 7 of 12 steps"):
        again.run(should_stop=lambda: next(asked, True))
    kept = sorted(file.name for file in (tmp_path / "checkpoints").glob("*.pt"))
    assert kept == ["step-000000005.pt", "step-000000007.pt"]


def test_metrics_of_several_devices_are_read_once_per_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """An objective's own on the CPU, beside a GPU's; the meta device is in its place, and has no numbers."""
    of_cpu = Tensor.tolist
    reads: list[tuple[str, int]] = []

    def read(values: Tensor) -> list[float]:
        reads.append((values.device.type, len(values)))
        return [0.5 + n for n in range(len(values))] if values.is_meta else of_cpu(values)

    monkeypatch.setattr(Tensor, "tolist", read)
    rows: list[Metrics] = [
        {"loss": torch.zeros((), device="meta"), "mined": torch.tensor(step), "rate": 0.1} for step in (7, 8)
    ]
    assert _read(rows) == [{"loss": 0.5, "mined": 7, "rate": 0.1}, {"loss": 1.5, "mined": 8, "rate": 0.1}]
    assert sorted(reads) == [("cpu", 2), ("meta", 2)]
