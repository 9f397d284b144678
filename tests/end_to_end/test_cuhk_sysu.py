"""The method on CUHK-SYSU's layout and protocol, its detector trained on WIDER Pedestrian as well."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_catalog.synthetic import (
    CuhkSysuSpec,
    WiderPedestrianSpec,
    write_cuhk_sysu,
    write_wider_pedestrian,
)
from tests.end_to_end.commands import Outcome, here
from tests.end_to_end.tiny import tiny_settings, write_tiny_config

SCENES = CuhkSysuSpec(
    train_images=12,
    test_images=8,
    width=96,
    height=96,
    train_identities=6,
    test_identities=4,
    cameras=2,
    people=(2, 3),
    gallery_sizes=(50,),
)
WIDER = WiderPedestrianSpec(train_images=4, test_images=1, width=128, height=96, people=(1, 3))
SETTINGS = [
    "gallery 50",
    "gallery full",
    "gallery 50, ground-truth boxes",
    "gallery full, ground-truth boxes",
]


def write_config(folder: Path) -> Path:
    """The tiny config on the two datasets drawn under `folder`."""
    datasets = {
        "cuhk": {"adapter": "cuhk-sysu", "root": str(folder / "cuhk")},
        "wider": {"adapter": "wider-pedestrian", "root": str(folder / "wider")},
    }
    settings = tiny_settings(folder, "store")
    of_cuhk = {"dataset": "cuhk", "split": "train"}
    return write_tiny_config(
        folder,
        folder,
        datasets=datasets,
        detector=settings["detector"]
        | {
            "train": [of_cuhk, {"dataset": "wider", "split": "train"}],
            "training": {"steps": 2, "batch_size": 2, "schedule": {"warmup_steps": 0}},
        },
        reid=settings["reid"]
        | {"train": of_cuhk, "phases": [{"epochs": 1, "objectives": [{"kind": "batch_hard_triplet"}]}]},
        evaluation={
            "test": {"dataset": "cuhk", "split": "test"},
            "protocol": "cuhk_sysu",
            "gallery_sizes": ["50", "full"],
            "ground_truth_boxes": True,
            "score_threshold": 0.0,
        },
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Outcome:
    """A finished run of the whole method."""
    folder = tmp_path_factory.mktemp("cuhk_sysu")
    write_cuhk_sysu(folder / "cuhk", SCENES, seed=5)
    write_wider_pedestrian(folder / "wider", WIDER, seed=5)
    outcome = here("run", write_config(folder), json_to=folder / "outcome.json")
    assert outcome.status == 0, outcome.stderr
    return outcome


def test_every_stage_is_made_and_the_report_written(run: Outcome) -> None:
    assert set(run.states.values()) == {"made"}
    assert {"ingest:cuhk", "ingest:wider", "evaluation"} <= set(run.states)
    page = Path(run.data["report"]).read_text()
    assert all(name in page for name in SETTINGS)


def test_every_setting_of_the_protocol_is_scored(run: Outcome) -> None:
    metrics = json.loads((run.path("evaluation") / "metrics.json").read_text())
    by_name = {setting["name"]: setting for setting in metrics["settings"]}
    assert list(by_name) == SETTINGS
    assert all(0 <= setting["mAP"] <= 1 for setting in by_name.values())
    assert metrics["headline"]["mAP"] == by_name["gallery 50"]["mAP"]
    # Fewer test images than 50: the file's galleries and the full ones hold the same images.
    for kind in ("", ", ground-truth boxes"):
        assert by_name[f"gallery 50{kind}"]["mAP"] == by_name[f"gallery full{kind}"]["mAP"]


def test_every_query_of_the_protocol_is_scored_in_every_setting(run: Outcome) -> None:
    per_query = pq.read_table(run.path("evaluation") / "per_query.parquet")
    queries = pq.read_table(run.path("ingest:cuhk") / "queries.parquet")
    assert len(per_query) == len(queries) * len(SETTINGS)
    assert pc.min(per_query["n_truths"]).as_py() >= 1
