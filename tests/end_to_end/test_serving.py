"""The page against the evaluator: the same people come first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_catalog.snapshot import Snapshot
from flows.search import build_index
from flows.search.judgements import Judgements
from flows.search.model import given_model
from flows.serving.searching import Served
from personsearch_core.evaluation.matching import iou
from tests.end_to_end.conftest import TinyRun
from tests.flows.serving.conftest import Site, serving

CORNERS = ["x1", "y1", "x2", "y2"]


@pytest.fixture(scope="module")
def site(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The test frames of the tiny run, indexed with its model and its evaluation's threshold."""
    folder = tmp_path_factory.mktemp("served")
    images = (
        Snapshot(tiny_run.outcome.path("ingest:scenes")).table("images", ["rel_path", "split"]).to_pylist()
    )
    listed = [tiny_run.folder / "prw" / each["rel_path"] for each in images if each["split"] == "test"]
    (folder / "test.txt").write_text("".join(f"{path}\n" for path in listed))
    build_index(folder / "index", [folder / "test.txt"], given_model(tiny_run.config))
    with serving(Served(folder / "index", Judgements(folder / "j.jsonl"), device="cpu")) as running:
        yield running


def test_rank_1_through_the_page_is_the_evaluators(site: Site, tiny_run: TinyRun) -> None:
    snapshot = Snapshot(tiny_run.outcome.path("ingest:scenes"))
    boxes = snapshot.table("boxes", ["image_id", "person_id", *CORNERS]).to_pylist()
    found = {}
    for query in snapshot.table("queries", ["query_id", "image_id", "person_id", *CORNERS]).to_pylist():
        content = (tiny_run.folder / "prw" / "frames" / query["image_id"]).read_bytes()
        picture = site.client.post("/api/pictures", content=content).raise_for_status().json()["picture"]
        box = ",".join(f"{query[name]:g}" for name in CORNERS)
        answer = site.client.get("/api/search", params={"picture": picture, "box": box, "top": 1})
        (best,) = answer.raise_for_status().json()["matches"]
        found[query["query_id"]] = shows(boxes, Path(best["image"]).name, best["box"], query["person_id"])
    scored = pq.read_table(tiny_run.outcome.path("evaluation") / "per_query.parquet").to_pylist()
    expected = {each["query_id"]: each["hit1"] for each in scored if each["setting"] == "prw"}
    assert found == expected and len(expected) >= 4
    assert 0 < sum(expected.values()) < len(expected), "a test that any ranking passes"


def shows(boxes: list[dict[str, Any]], image: str, box: list[float], person: str) -> bool:
    """Whether a person is there, by the rule of PRW's protocol for small people."""
    for each in boxes:
        if each["image_id"] == image and each["person_id"] == person:
            true = np.array([[each[name] for name in CORNERS]])
            width, height = true[0, 2] - true[0, 0], true[0, 3] - true[0, 1]
            least = min(0.5, width * height / ((width + 10) * (height + 10)))
            if iou(np.array([box]), true)[0] >= least:
                return True
    return False
