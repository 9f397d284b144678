"""The benchmarks at their smallest: every figure is there, and those that must be are above nothing."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.beside import compare, figures_of
from benchmarks.compiled import measure
from benchmarks.coordination import measure as measure_coordination
from benchmarks.extraction import ExtractionBenchmark, measure_extraction
from benchmarks.extraction import _figures as extraction_figures
from benchmarks.object_clients import measure_clients
from benchmarks.reid import ReidBenchmark, Steps, in_turn, measure_reid
from benchmarks.remote_training import MODEL, measure_remote
from benchmarks.search import SearchBenchmark, measure_search
from personsearch_core.recipes import Compute, DetectorModel, RoiRecipe
from personsearch_core.speed import SpeedRow
from tests.personsearch_core.training.synthetic_rows import ArrayRows

SMALL = DetectorModel(
    backbone="resnet18",
    fpn_channels=16,
    image_width=96,
    image_height=224,
    norm="batch",
    initial_weights=None,
)


@pytest.mark.slow
def test_reid(tmp_path: Path) -> None:
    size = ReidBenchmark(rows=256, batch=8, rounds=1, model=SMALL)
    found = {(one.group, one.name): one for one in measure_reid(tmp_path, size)}
    assert {bound.bound for bound in found.values()} == {"", "<= 1.1", "<= 2", ">= 1.5", ">= 4", ">= 12"}
    assert all(one.seconds > 0 and one.value >= 0 for one in found.values())


class SlowRows(ArrayRows):
    """Rows that take longer to read than a step takes."""

    seconds, batches = 0.25, 0

    def rows(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        self.batches += 1
        time.sleep(self.seconds)
        return super().rows(indices, out)


def test_rows_that_a_step_waits_for_are_not_read_during_anothers() -> None:
    size = ReidBenchmark(rows=64, batch=8, model=SMALL)
    reader = SlowRows(np.zeros((64, *RoiRecipe(roi_scale=0.5).row_shape("resnet18")), np.float16))
    steps = Steps(size, reader, "j3", Compute(), memory=False)
    try:
        turns = in_turn({"disk": steps}, 2)["disk"]
        assert reader.batches == steps.warm_up + 2 * steps.per_turn
        time.sleep(4 * reader.seconds)  # another contender's turn
        turns.append(steps.turn(steps.per_turn))
        assert reader.batches == steps.warm_up + 3 * steps.per_turn
    finally:
        steps.close()
    unhidden = reader.seconds * (steps.per_turn - 1) / steps.per_turn
    assert all(turn.seconds > 0.8 * unhidden and 0 < turn.waiting < turn.seconds for turn in turns)


@pytest.mark.slow
def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    # Inductor takes more than a minute for both graphs; `test_reid.py` trains a branch that it has compiled.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model = DetectorModel.model_validate(SMALL.model_dump() | {"head_convolutions": 1})
    found = list(measure(model, Compute(), torch.device("cpu"), batch=2, people=3, rounds=1))
    assert [row.part for row in found] == ["training", "inference"]
    assert all(row.eager > 0 and row.compiled > 0 and row.ratio > 0 for row in found)


def test_extraction(tmp_path: Path) -> None:
    size = ExtractionBenchmark(variants=("j4",), rounds=1, model=SMALL, images=(96, 224))
    found = list(measure_extraction(tmp_path, size))
    assert [one.value > 0 for one in found] == [True] * 6
    assert [one.bound for one in found] == ["", "", "", "", "<= 1.1", ""]
    disk, written, rate = found[2], found[4], found[5]
    assert rate.unit == disk.unit == "GiB/s" and rate.seconds == written.seconds
    assert rate.value * rate.seconds == pytest.approx(disk.value * disk.seconds)


def test_a_gpus_wire_can_be_the_floor_of_extraction() -> None:
    seconds = {"forward": 0.5, "computed": 1.0, "disk": 2.0, "pooled": 3.0, "written": 6.0}

    def figures(**more: float) -> dict[str, tuple[float, str]]:
        found = extraction_figures("g", {**seconds, **more}, images=10, gib=2.0, rounds=1, bound=1.3)
        return {one.name.split(":")[0]: (one.value, one.unit) for one in found}

    with_wire = figures(copied=4.0)
    assert with_wire["the wire"] == (0.5, "GiB/s") and with_wire["the disk"] == (1.0, "GiB/s")
    assert with_wire["features stage, written and flushed"] == (1.5, "x floor")
    assert with_wire["features stage, its rate"] == (2.0 / 6.0, "GiB/s")
    assert figures()["features stage, written and flushed"] == (3.0, "x floor")
    assert "the wire" not in figures()


@pytest.mark.slow
def test_remote_training(tmp_path: Path) -> None:
    size = ReidBenchmark(rows=1024, batch=16, rounds=1, model=MODEL)
    found = list(measure_remote(tmp_path, size))
    assert [one.bound for one in found if one.bound] == [">= 0.8", ">= 0.8", "<= 1"]
    assert all(one.value > 0 for one in found) and found[-1].holds


@pytest.mark.slow
def test_coordination(tmp_path: Path) -> None:
    found = {(one.group, one.name): one.value for one in measure_coordination(tmp_path, 3, 0.0)}
    alone = found["one machine, artifacts of their own", "requests"]
    assert alone == found["3 machines, artifacts of their own", "requests"] > 0
    assert 0 < found["3 machines, one artifact", "the last has it after the builder by"] < 10


def test_clients_of_object_storage_return_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="it is installed with the extra `bench`")
    found = list(measure_clients(tmp_path, objects=3, parts=2, rounds=1))
    assert [one.group for one in found[::6]] == [
        "list 3 objects",
        "send 2 MB",
        "fetch 2 MB",
        "2 ranges, S3",
        "2 ranges, HTTP with 20 ms per request",
    ]
    assert len(found) == 30 and all(one.value > 0 for one in found)


@pytest.mark.slow
def test_search(tmp_path: Path) -> None:
    size = SearchBenchmark(people=2000, images=10, rounds=1, model=SMALL, size=(96, 224))
    found = {one.name: one for one in measure_search(tmp_path, size)}
    assert [one.bound for one in found.values() if one.bound] == ["<= 1", "<= 1.2", "<= 1", ">= 0.95", "<= 3"]
    assert all(one.value > 0 for one in found.values())


def _figures(*seconds: float) -> list[dict[str, object]]:
    return [{"group": "g", "name": f"n{place}", "seconds": each} for place, each in enumerate(seconds)]


def test_two_versions_are_compared_pair_by_pair() -> None:
    pairs = [
        (_figures(1.0, 3.0), _figures(1.0, 1.0)),
        (_figures(4.0, 1.2), _figures(4.0, 1.0)),  # a busy moment slows both alike
        (_figures(1.0, 1.2), _figures(1.0, 1.1)),
    ]
    level, slower = compare("reid", pairs)
    assert (level.ratio, level.spread, level.holds) == (1.0, 4.0, True)
    assert slower.ratio == pytest.approx(1.2) and slower.spread == pytest.approx(1.1) and not slower.holds
    assert [one.name for one in compare("reid", [(_figures(1.0, 1.0), _figures(1.0))])] == ["n0"]
    with pytest.raises(ValueError, match="reid: the other checkout measures none of 2 figures"):
        compare("reid", [(_figures(1.0, 1.0), [])])


def test_the_speed_of_two_versions_is_compared_case_by_case() -> None:
    cases = [
        SpeedRow("j3", 4, people, seconds, 1.0, 1.0, 1.0, 1.0) for people, seconds in ((5, 2.0), (20, 3.0))
    ]
    ours = figures_of("speed", [asdict(case) for case in cases])
    theirs = figures_of("speed", [asdict(replace(case, seconds=2.0)) for case in cases])
    assert [one.ratio for one in compare("speed", [(ours, theirs)])] == [1.0, 1.5]
