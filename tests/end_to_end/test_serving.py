"""The page against the evaluator: the same people come first."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_catalog.snapshot import Snapshot
from flows.search import build_index
from flows.search.judgements import Judgements
from flows.search.model import given_model
from flows.serving.searching import Served
from tests.end_to_end.commands import here
from tests.end_to_end.conftest import TinyRun
from tests.flows.serving.conftest import Site, serving

CORNERS = ["x1", "y1", "x2", "y2"]
FLOAT16 = 2e-3
ALL_DETECTIONS = "detections.score_threshold=0"


@pytest.fixture(scope="module")
def evaluated(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The tiny run again, with all detections: its detector is sure of none."""
    folder = tmp_path_factory.mktemp("evaluated") / "tiny"
    shutil.copytree(tiny_run.folder, folder, symlinks=True)
    config = folder / tiny_run.config.name
    words = ("--set", ALL_DETECTIONS, "--until", "evaluation")
    outcome = here("run", config, *words, json_to=folder / "outcome.json")
    assert outcome.status == 0, outcome.stderr
    return TinyRun(config, outcome)


@pytest.fixture(scope="module")
def site(evaluated: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The test frames, indexed with the run's model and its evaluation's threshold."""
    folder = tmp_path_factory.mktemp("served")
    snapshot = Snapshot(evaluated.outcome.path("ingest:scenes"))
    images = snapshot.table("images", ["rel_path", "split"]).to_pylist()
    listed = [evaluated.folder / "prw" / each["rel_path"] for each in images if each["split"] == "test"]
    (folder / "test.txt").write_text("".join(f"{path}\n" for path in listed))
    build_index(folder / "index", [folder / "test.txt"], given_model(evaluated.config, [ALL_DETECTIONS]))
    with serving(Served(folder / "index", Judgements(folder / "j.jsonl"), device="cpu")) as running:
        yield running


def test_the_best_match_through_the_page_is_the_evaluators(site: Site, evaluated: TinyRun) -> None:
    """Of every query, its own image left out, as far as float16 tells matches apart; so rank-1 is, too."""
    matches = pq.read_table(evaluated.outcome.path("evaluation") / "matches.parquet").to_pylist()
    best = {each["query_id"]: each for each in matches if each["rank"] == 1}
    snapshot = Snapshot(evaluated.outcome.path("ingest:scenes"))
    queries = snapshot.table("queries", ["query_id", "image_id", *CORNERS]).to_pylist()
    assert len(queries) == len(best) >= 8
    for query in queries:
        content = (evaluated.folder / "prw" / "frames" / query["image_id"]).read_bytes()
        picture = site.client.post("/api/pictures", content=content).raise_for_status().json()["picture"]
        box = ",".join(f"{query[name]:g}" for name in CORNERS)
        answer = site.client.get("/api/search", params={"picture": picture, "box": box, "top": 200})
        found = answer.raise_for_status().json()["matches"]
        assert query["image_id"] not in {Path(match["image"]).name for match in found}
        expected = best[query["query_id"]]
        same = [match for match in found if is_of(match, expected)]
        assert len(same) == 1 and same[0]["similarity"] >= found[0]["similarity"] - FLOAT16
        assert found[0]["similarity"] == pytest.approx(expected["similarity"], abs=FLOAT16)


def is_of(match: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether a match is the evaluator's, by image and box."""
    same_box = match["box"] == pytest.approx([expected[name] for name in CORNERS], abs=0.05)
    return bool(same_box) and Path(match["image"]).name == expected["image_id"]
