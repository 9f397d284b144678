"""Training a branch from cached rows: it learns, resumes to the byte, and says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from personsearch_core.schedules import rate_factor
from personsearch_core.training import reid
from personsearch_core.training.checkpoints import load_newest
from personsearch_core.training.loop import LoopSettings, TrainingStopped
from personsearch_core.training.reid import ReidTraining, train_reid
from tests.forking import kill_at_step, start
from tests.personsearch_core.training.conftest import one_thread
from tests.personsearch_core.training.reid_trainings import (
    OBJECTIVES,
    recipe,
    train,
    train_with_checkpoints,
)
from tests.personsearch_core.training.synthetic_rows import people, small_branch

MANY: dict[str, Any] = {"unlabelled_per_batch": 4, "held_out_identities": 0.3, "identities_per_batch": 8}


@pytest.fixture(scope="module")
def untrained_map(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The mAP of a branch whose weights stay as they were."""
    reader, labels = people(identities=40, boxes=5, unlabelled=40)
    wanted = recipe([{"objectives": OBJECTIVES["softmax"], "epochs": 1}], **MANY, lr=1e-12)
    result = train_reid(wanted, small_branch(), reader, labels, tmp_path_factory.mktemp("untrained"))
    return result.metrics["validation/mAP"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_beats_the_untrained_branch(tmp_path: Path, name: str, untrained_map: float) -> None:
    reader, labels = people(identities=40, boxes=5, unlabelled=40)
    phase = [{"objectives": OBJECTIVES[name], "epochs": 40}]
    wanted = recipe(phase, validate_every_epochs=40, **MANY)
    trained = train_reid(wanted, small_branch(), reader, labels, tmp_path)
    assert trained.metrics["validation/mAP"] > 1.3 * untrained_map


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


@pytest.mark.slow
def test_kill_9_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two processes are killed one after the other while they train, and this one finishes."""
    with one_thread():
        train_with_checkpoints(tmp_path / "whole")
    for step in (10, 30):
        process = start(train_with_checkpoints, tmp_path / "killed")
        kill_at_step(step, tmp_path / "killed" / "checkpoints", process)
    with one_thread():
        train_with_checkpoints(tmp_path / "killed")
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


def test_early_stopping_ends_the_phase_and_the_next_starts_afresh(tmp_path: Path) -> None:
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


def skip_without_compiler() -> None:
    """Skip where torch cannot compile anything for this machine's CPU."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2))
    except Exception as error:
        pytest.skip(f"torch.compile does not work here: {type(error).__name__}")


@pytest.mark.slow
def test_a_compiled_branch_trains_as_the_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++ for the CPU")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    from torch._inductor import config as inductor

    phase = [{"objectives": OBJECTIVES["semi_hard"], "epochs": 2}]
    plain = train(tmp_path / "plain", recipe(phase))
    try:
        # Plain loops compile sooner, and processes that compile beside this one load torch first.
        with inductor.patch({"compile_threads": 1, "cpp.simdlen": 1}):
            compiled = train(tmp_path / "compiled_branch", recipe(phase, compute={"compile": True}))
    except Exception:
        skip_without_compiler()
        raise
    assert compiled.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-3)
    names = [set(load_file(tmp_path / part / "branch.safetensors")) for part in ("plain", "compiled_branch")]
    assert names[0] == names[1]


@pytest.mark.parametrize("compute", [{"precision": "bf16"}, {"precision": "bf16", "channels_last": True}])
def test_faster_computing_learns_too(tmp_path: Path, compute: dict[str, Any]) -> None:
    phase = [{"objectives": OBJECTIVES["semi_hard"], "epochs": 20}]
    train(tmp_path, recipe(phase, compute=compute))
    losses = pq.read_table(tmp_path / "history.parquet")["loss"].to_pylist()
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
