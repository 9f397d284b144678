"""Training a branch from cached rows: it learns, resumes to the byte, and says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import ReidLabels
from personsearch_core.recipes import ReidRecipe
from personsearch_core.schedules import rate_factor
from personsearch_core.training import reid
from personsearch_core.training.checkpoints import load_newest
from personsearch_core.training.loop import LoopSettings, NonFiniteError, TrainingStopped
from personsearch_core.training.reid import ReidResult, ReidTraining, train_reid
from personsearch_core.training.watching import CollapseError
from tests.personsearch_core.training.synthetic_rows import ArrayRows, people, small_branch

OBJECTIVES: dict[str, list[dict[str, Any]]] = {
    "semi_hard": [{"kind": "semi_hard_triplet"}],
    "batch_hard": [{"kind": "batch_hard_triplet"}],
    "softmax": [{"kind": "identity_softmax"}],
    "softmax_center": [{"kind": "identity_softmax"}, {"kind": "center", "weight": 0.01}],
    "oim": [{"kind": "oim", "queue": 20}],
    "iel": [{"kind": "iel", "queue": 20}],
    "ioim_center": [{"kind": "ioim", "queue": 20}, {"kind": "center", "weight": 0.01}],
    "circle": [{"kind": "metric_learning", "loss": "CircleLoss", "miner": "MultiSimilarityMiner"}],
    "hep_olp": [{"kind": "hep_softmax", "hard_identities": 4}, {"kind": "olp"}],
}


def recipe(phases: list[dict[str, Any]] | None = None, **fields: Any) -> ReidRecipe:
    return ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 8},
            "phases": phases or [{"objectives": OBJECTIVES["semi_hard"], "epochs": 6}],
            "identities_per_batch": 4,
            "shots": 3,
            "lr": 0.003,
            **fields,
        }
    )


def train(work_dir: Path, wanted: ReidRecipe, **options: Any) -> ReidResult:
    reader, labels = people()
    return train_reid(wanted, small_branch(), reader, labels, work_dir, **options)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_beats_the_untrained_branch(tmp_path: Path, name: str) -> None:
    reader, labels = people(identities=40, boxes=5, unlabelled=40)
    fields: dict[str, Any] = {
        "unlabelled_per_batch": 4,
        "held_out_identities": 0.3,
        "identities_per_batch": 8,
    }
    phase = [{"objectives": OBJECTIVES[name], "epochs": 40}]
    untrained = train_reid(
        recipe([{"objectives": OBJECTIVES[name], "epochs": 1}], **{**fields, "lr": 1e-12}),
        small_branch(),
        reader,
        labels,
        tmp_path / "untrained",
    )
    trained = train_reid(
        recipe(phase, validate_every_epochs=40, **fields),
        small_branch(),
        reader,
        labels,
        tmp_path / "trained",
    )
    assert trained.metrics["validation/mAP"] > 1.3 * untrained.metrics["validation/mAP"]


def test_results_are_complete(tmp_path: Path) -> None:
    phases = [
        {"objectives": OBJECTIVES["semi_hard"], "epochs": 2},
        {"objectives": OBJECTIVES["batch_hard"], "epochs": 3},
    ]
    result = train(tmp_path, recipe(phases, held_out_identities=0.25, validate_every_epochs=2))
    assert result.steps == 5 * 3
    assert (result.training_identities, result.held_out_identities) == (9, 3)
    history = pq.read_table(tmp_path / "history.parquet").to_pandas()
    assert history["step"].tolist() == list(range(15))
    assert history["phase"].tolist() == [0] * 6 + [1] * 9
    watched = {
        "loss",
        "active_triplets",
        "positive_distance",
        "negative_distance",
        "embedding_norm",
        "gradient_norm",
    }
    assert not history[list(watched)].isna().any().any()
    assert history["validation/mAP"].notna().sum() == 3
    assert set(load_file(tmp_path / "branch.safetensors")) == set(small_branch().state_dict())
    assert json.loads((tmp_path / "branch.json").read_text())["recipe"]["lr"] == 0.003
    assert list((tmp_path / "logs").iterdir())


def test_a_finished_training_ends_at_once_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(keep="best", held_out_identities=0.3, validate_every_epochs=2)
    first = train(tmp_path, wanted)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.setattr(ReidTraining, "step", lambda *_: pytest.fail("a step was taken again"))
    assert train(tmp_path, wanted) == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == kept


def test_half_of_a_gpus_free_memory_may_hold_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 * 2**30, 80 * 2**30))
    assert reid._memory_budget(torch.device("cuda:1")) == 30 * 2**30
    assert reid._memory_budget(torch.device("cpu")) == 4 * 2**30


@pytest.mark.parametrize("memory_budget", [0, 2**30])
def test_stopped_anywhere_gives_the_same_bytes(tmp_path: Path, memory_budget: int) -> None:
    """Two phases, a memory, validation and best weights; stopped after every third step."""
    phases = [
        {"objectives": OBJECTIVES["ioim_center"], "epochs": 3},
        {"objectives": OBJECTIVES["batch_hard"], "epochs": 3},
    ]
    wanted = recipe(
        phases, unlabelled_per_batch=2, held_out_identities=0.25, validate_every_epochs=1, keep="best"
    )
    train(tmp_path / "whole", wanted)
    for _ in range(100):
        calls = iter(range(1000))
        try:
            train(
                tmp_path / "pieces",
                wanted,
                memory_budget=memory_budget,
                should_stop=lambda calls=calls: next(calls) == 3,
            )
            break
        except TrainingStopped:
            continue
    for name in ("branch.safetensors", "branch.json", "history.parquet"):
        assert (tmp_path / "pieces" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


TRAIN_IN_A_PROCESS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.personsearch_core.training.test_reid import recipe, train
from personsearch_core.training.loop import LoopSettings
phases = [{"objectives": [{"kind": "semi_hard_triplet"}], "epochs": 150}]
train(Path(sys.argv[1]), recipe(phases), settings=LoopSettings(checkpoint_steps=10))
"""


@pytest.mark.slow
def test_kill_9_gives_the_same_bytes(tmp_path: Path) -> None:
    """A process is killed twice while it trains, and a third one finishes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def start(work_dir: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", TRAIN_IN_A_PROCESS, str(work_dir)], env=environment)

    assert start(tmp_path / "whole").wait() == 0
    killed = 0
    for target in (60, 250):
        process = start(tmp_path / "killed")
        while process.poll() is None:
            reached = sorted((tmp_path / "killed" / "checkpoints").glob("step-*.pt"))
            if reached and int(reached[-1].stem.removeprefix("step-")) >= target:
                process.send_signal(signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.005)
    assert killed == 2
    assert start(tmp_path / "killed").wait() == 0
    for name in ("branch.safetensors", "history.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    wanted = recipe(
        [{"objectives": OBJECTIVES["semi_hard"], "epochs": 60}],
        held_out_identities=0.25,
        validate_every_epochs=1,
        early_stopping=3,
        keep="best",
    )
    result = train(tmp_path, wanted)
    scores = pq.read_table(tmp_path / "history.parquet")["validation/mAP"].drop_null().to_pylist()
    assert result.steps < 60 * 3
    assert scores.index(max(scores)) == len(scores) - 4
    assert result.kept_steps == 3 * (len(scores) - 3)
    assert result.metrics["validation/best_mAP"] == max(scores)


def test_early_stopping_ends_the_phase_and_the_next_begins_anew(tmp_path: Path) -> None:
    phases = [
        {"objectives": OBJECTIVES["semi_hard"], "epochs": 60},
        {"objectives": OBJECTIVES["batch_hard"], "epochs": 60},
        {"objectives": OBJECTIVES["softmax"], "epochs": 2},
    ]
    options = {"held_out_identities": 0.25, "validate_every_epochs": 1, "early_stopping": 3}
    wanted = recipe(phases, **options, keep="best")
    result = train(tmp_path / "whole", wanted)
    history = pq.read_table(tmp_path / "whole" / "history.parquet").to_pandas()
    epochs = history.groupby("phase").size() / 3
    assert set(history["phase"]) == {0, 1, 2} and epochs[0] < 60 and epochs[1] < 60 and epochs[2] == 2
    assert history["step"].tolist() == list(range(result.steps))
    scores = history.dropna(subset="validation/mAP")
    best = scores["validation/mAP"].cummax()
    for phase in (0, 1):
        own = scores["phase"] == phase
        assert (scores["validation/mAP"][own][-3:] <= best[own].iloc[-1]).all()
        assert own.sum() >= 3
    # The rate goes on as if the phases had been run.
    planned = rate_factor(wanted.schedule, 120 * 3, 122 * 3) * wanted.lr
    assert history["rate"][history["phase"] == 2].iloc[0] == pytest.approx(planned)
    calls = iter(range(1000))
    stop_in = int((history["phase"] == 0).sum()) + 4
    with pytest.raises(TrainingStopped):
        train(tmp_path / "pieces", wanted, should_stop=lambda: next(calls) == stop_in)
    train(tmp_path / "pieces", wanted)
    parts = [(tmp_path / name / "branch.safetensors").read_bytes() for name in ("whole", "pieces")]
    assert parts[0] == parts[1]


def _optimiser_steps(work_dir: Path) -> float:
    """Steps that Adam's moments were gathered over, by the last checkpoint."""
    found = load_newest(work_dir / "checkpoints")
    assert found is not None
    return float(found.state["optimiser"]["state"][0]["step"])


def test_a_schedule_may_span_the_run_or_each_phase(tmp_path: Path) -> None:
    phases = [
        {"objectives": OBJECTIVES["semi_hard"], "epochs": 3},
        {"objectives": OBJECTIVES["batch_hard"], "epochs": 2},
    ]
    rates = {}
    for span in ("run", "phase"):
        wanted = recipe(phases, schedule={"span": span, "warmup_steps": 2})
        train(tmp_path / span, wanted)
        rates[span] = pq.read_table(tmp_path / span / "history.parquet")["rate"].to_numpy()
    n_first, n_second = 3 * 3, 2 * 3
    factors = [rate_factor(wanted.schedule, step, n_first) for step in range(n_first)]
    factors += [rate_factor(wanted.schedule, step, n_second) for step in range(n_second)]
    np.testing.assert_allclose(rates["phase"], 0.003 * np.array(factors), rtol=1e-6)
    assert (np.diff(rates["run"])[2:] < 0).all()
    assert [_optimiser_steps(tmp_path / span) for span in ("run", "phase")] == [n_first + n_second, n_second]
    for _ in range(20):
        calls = iter(range(1000))
        try:
            train(tmp_path / "pieces", wanted, should_stop=lambda calls=calls: next(calls) == 3)
            break
        except TrainingStopped:
            continue
    parts = [(tmp_path / name / "branch.safetensors").read_bytes() for name in ("phase", "pieces")]
    assert parts[0] == parts[1]


class PullTogether(nn.Module):
    """A branch that shrinks everything to a point, faster and faster."""

    def __init__(self, dead: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * 4 * 2, 8)
        self.calls = 0
        self.dead_after = 15 if dead else None

    def forward(self, x):  # type: ignore[no-untyped-def]
        self.calls += self.training
        scale = 1e-6 if self.dead_after is not None and self.calls > self.dead_after else 1.0
        return self.linear(x.flatten(1)) * scale


@pytest.mark.parametrize("objective", ["semi_hard", "batch_hard"])
def test_collapse_is_named_within_50_steps(tmp_path: Path, objective: str) -> None:
    reader, labels = people()
    wanted = recipe([{"objectives": OBJECTIVES[objective], "epochs": 100}], lr=1e-4)
    with pytest.raises(
        CollapseError, match=r"collapsed by step (\d+).*same point.*Lower lr.*semi_hard"
    ) as caught:
        train_reid(wanted, PullTogether(dead=True), reader, labels, tmp_path)
    step = int(str(caught.value).split("by step ")[1].split(":")[0])
    assert 15 < step <= 15 + 50
    train_reid(wanted, PullTogether(dead=False), reader, labels, tmp_path / "alive")


def test_out_of_memory_says_what_to_change(tmp_path: Path) -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ torch.empty(2**50, 2**10)

    reader, labels = people()
    with pytest.raises(PersonSearchError, match=r"out of memory: lower identities_per_batch \(4\)"):
        train_reid(recipe(), _WithParameter(Large()), reader, labels, tmp_path)


def test_other_errors_of_a_branch_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    reader, labels = people()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train_reid(recipe(), _WithParameter(nn.Linear(3, 8)), reader, labels, tmp_path)


class _WithParameter(nn.Module):
    """What it wraps, with something to optimise."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * self.scale


def test_bad_rows_are_named(tmp_path: Path) -> None:
    reader, labels = people(unlabelled=0)
    reader.array[17] = np.nan
    with pytest.raises(NonFiniteError, match=r"loss is nan at step \d+; the batch holds rows \[.*\b17\b"):
        train_reid(recipe(), small_branch(), reader, labels, tmp_path)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    empty = ReidLabels.from_columns([], [])
    with pytest.raises(PersonSearchError, match="nothing to train on: the store has 0 rows"):
        train_reid(recipe(), small_branch(), ArrayRows(np.zeros((0, 4, 4, 2), np.float16)), empty, tmp_path)


def test_store_of_another_variant(tmp_path: Path) -> None:
    reader, labels = people(channels=6)
    with pytest.raises(PersonSearchError, match=r"rows of \(6, 4, 2\).*maps of 4 channels.*another variant"):
        train_reid(recipe(), small_branch(), reader, labels, tmp_path)


def test_index_of_another_store(tmp_path: Path) -> None:
    reader, _ = people()
    _, labels = people(identities=3)
    with pytest.raises(PersonSearchError, match="the index has 28 rows, the features have 82"):
        train_reid(recipe(), small_branch(), reader, labels, tmp_path)


def test_best_needs_people_held_out(tmp_path: Path) -> None:
    with pytest.raises(PersonSearchError, match="need held_out_identities above 0"):
        train(tmp_path, recipe(keep="best"))


def test_nobody_to_validate_with_is_told_before_the_first_step(tmp_path: Path) -> None:
    reader, labels = people()
    once_each = replace(labels, image=np.maximum(labels.label, 0))
    with pytest.raises(PersonSearchError, match="no held-out person is in two images"):
        train_reid(recipe(held_out_identities=0.25), small_branch(), reader, once_each, tmp_path)
    assert not (tmp_path / "history.jsonl").exists()


def test_settings_of_the_loop_change_nothing(tmp_path: Path) -> None:
    train(tmp_path / "plain", recipe())
    train(
        tmp_path / "other",
        recipe(),
        settings=LoopSettings(checkpoint_steps=1, flush_steps=7),
        threads=3,
        memory_budget=0,
    )
    for name in ("branch.safetensors", "history.parquet"):
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips where torch cannot compile for this machine's CPU, which takes a C++ compiler."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++ for the CPU")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2))
    except Exception as error:
        pytest.skip(f"torch.compile does not work here: {type(error).__name__}")


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_compiled_branch_trains_as_the_plain_one(tmp_path: Path) -> None:
    phase = [{"objectives": OBJECTIVES["semi_hard"], "epochs": 2}]
    plain = train(tmp_path / "plain", recipe(phase))
    compiled = train(tmp_path / "compiled_branch", recipe(phase, compute={"compile": True}))
    assert compiled.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-3)
    names = [set(load_file(tmp_path / part / "branch.safetensors")) for part in ("plain", "compiled_branch")]
    assert names[0] == names[1]


@pytest.mark.parametrize("compute", [{"precision": "bf16"}, {"precision": "bf16", "channels_last": True}])
def test_faster_computing_learns_too(tmp_path: Path, compute: dict[str, Any]) -> None:
    phase = [{"objectives": OBJECTIVES["semi_hard"], "epochs": 20}]
    train(tmp_path, recipe(phase, compute=compute))
    losses = pq.read_table(tmp_path / "history.parquet")["loss"].to_pylist()
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
