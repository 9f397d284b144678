"""The worked example of a third-party adapter, and the comparison that uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pets_pennfudan import CONFIGS, EXAMPLE, FrameMatches, Run, adapter_on_path, summarise, table
from data_catalog.errors import CatalogError
from data_catalog.ingest import ingest_root
from data_catalog.schema import INVALID
from data_catalog.snapshot import Snapshot
from personsearch_core.evaluation.detection import coco_detection
from personsearch_core.evaluation.records import Detections, GroundTruth

MOST_LINES = 40


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    from penn_fudan import PennFudan

    return PennFudan()


def _personsearch(environment: dict[str, str], *arguments: str | Path) -> str:
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_short() -> None:
    lines = [line for name in ("penn_fudan.py", "pyproject.toml") for line in (EXAMPLE / name).open()]
    assert len([line for line in lines if line.strip()]) <= MOST_LINES


def test_it_reads_penn_fudan(shared: Path, tmp_path: Path, adapter) -> None:
    counts = ingest_root(shared / "data" / "PennFudanPed", adapter, tmp_path)
    assert (counts["images"], counts["boxes"], counts["rejects"]) == (170, 423, 0)
    snapshot = Snapshot(tmp_path)
    boxes = snapshot.table("boxes", ["image_id", "x1", "y1", "x2", "y2", "person_id"]).to_pylist()[:2]
    corners = [tuple(box[name] for name in ("image_id", "x1", "y1", "x2", "y2")) for box in boxes]
    assert corners == [("FudanPed00001", 159, 181, 302, 431), ("FudanPed00001", 419, 170, 535, 486)]


def test_damaged_files(shared: Path, tmp_path: Path, adapter) -> None:
    root, source = tmp_path / "root", shared / "data" / "PennFudanPed"
    for folder in ("Annotation", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    with pytest.raises(CatalogError, match="is not Penn-Fudan"):
        ingest_root(root, adapter, tmp_path)
    text = (source / "Annotation" / "FudanPed00001.txt").read_text()
    (root / "Annotation" / "FudanPed00001.txt").write_text(text.replace("(420, 171)", "?"))
    picture = (source / "JPEGImages" / "FudanPed00001.jpg").read_bytes()
    (root / "JPEGImages" / "FudanPed00001.jpg").write_bytes(picture)
    work = tmp_path / "work"
    work.mkdir()
    ingest_root(root, adapter, work)
    (reject,) = Snapshot(work).table("rejects").to_pylist()
    assert (reject["severity"], reject["code"], reject["image_id"]) == (
        INVALID,
        "row_unreadable",
        "FudanPed00001",
    )


def test_a_process_finds_it_and_both_configs_are_planned(shared: Path, tmp_path: Path) -> None:
    environment = adapter_on_path(EXAMPLE, tmp_path / "adapter")
    environment["PERSONSEARCH_SAMPLES"] = str(shared / "data")
    environment["OMP_NUM_THREADS"] = "1"
    assert "penn-fudan" in _personsearch(environment, "datasets", "list")
    for config in CONFIGS.values():
        assert "evaluation" in _personsearch(environment, "plan", config, "--store", tmp_path / "store")


def _frames(rng: np.random.Generator, n_frames: int = 30) -> tuple[Detections, GroundTruth]:
    people = np.sort(rng.integers(0, n_frames, 90))
    corner = rng.uniform(0, 300, (90, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(40, 80, (90, 2))], axis=1).astype(np.float32)
    image = np.concatenate([people, people, rng.integers(0, n_frames, 40)])
    found = np.concatenate([boxes + rng.normal(0, 6, boxes.shape), boxes, boxes[:40] + 30]).astype(np.float32)
    order = np.argsort(image, kind="stable")
    scores = np.round(rng.uniform(0, 1, len(image)), 2).astype(np.float32)
    detections = Detections(image[order], found[order], scores, np.zeros((len(image), 0), np.float32))
    return detections, GroundTruth(people, boxes, np.full(90, -1))


@pytest.mark.parametrize("seed", range(5))
def test_ap50_is_that_of_pycocotools_however_often_frames_are_drawn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    detections, truth = _frames(rng)
    matches = FrameMatches.of(detections, truth, 30)
    assert matches.ap50(np.ones(30, int)) == pytest.approx(
        coco_detection(detections, truth, 30)[0], abs=1e-12
    )
    drawn = rng.integers(0, 30, 30)
    rows = [np.flatnonzero(detections.image == frame) for frame in drawn]
    people = [np.flatnonzero(truth.image == frame) for frame in drawn]

    def numbered(parts: list[np.ndarray]) -> np.ndarray:
        return np.repeat(np.arange(30), [len(part) for part in parts])

    row, person = np.concatenate(rows), np.concatenate(people)
    again = Detections(
        numbered(rows), detections.boxes[row], detections.scores[row], detections.embeddings[row]
    )
    known = GroundTruth(numbered(people), truth.boxes[person], truth.person_id[person])
    expected = coco_detection(again, known, 30)[0]
    # Equal scores may come in another order there, which moves AP a little.
    assert matches.ap50(np.bincount(drawn, minlength=30)) == pytest.approx(expected, abs=0.01)


def test_a_summary_names_what_is_gained() -> None:
    rng = np.random.default_rng(0)
    detections, truth = _frames(rng)
    person = np.repeat(np.arange(6), 3)

    def run(shift: float) -> Run:
        worse = Detections(
            detections.image, detections.boxes + np.float32(shift), detections.scores, detections.embeddings
        )
        ap = rng.uniform(0.2, 0.6, 18)
        return Run(FrameMatches.of(worse, truth, 30), ap, (ap > 0.4).astype(float), person)

    arms = [[run(9), run(9.5), run(9.2)], [run(0), run(1), run(0.5)]]
    summaries = summarise(arms, np.random.default_rng(1), draws=200)
    assert len(summaries) == 3
    for of in summaries:
        assert (of.low <= of.mean).all() and (of.mean <= of.high).all()
    gain = summaries[2]
    assert gain.low[0] > 0 and gain.low[1] > 0  # AP50 and recall
    assert gain.mean == pytest.approx(summaries[1].mean - summaries[0].mean)
    lines = table(["A", "B"], summaries).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["A", "B", "gain of B"]
