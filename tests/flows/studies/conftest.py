"""The small config of sweeps, and stages in the test's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_catalog.synthetic import PrwSpec, write_prw
from flows.run import making
from tests.flows.studies.sweeps import Watched


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_prw(
        folder / "prw",
        PrwSpec(train_images=24, test_images=10, train_identities=8, test_identities=5),
        seed=3,
    )
    small = {
        "store": "store",
        "datasets": {"scenes": {"adapter": "prw", "root": "prw"}},
        "detector": {
            "train": [{"dataset": "scenes", "split": "train"}],
            "model": {
                "backbone": "resnet18",
                "fpn_channels": 16,
                "image_width": 160,
                "image_height": 128,
                "norm": "batch",
                "initial_weights": None,
                "head_convolutions": 1,
            },
            "training": {"steps": 2, "batch_size": 2},
        },
        "roi": {"roi_height": 8, "roi_width": 4},
        "reid": {
            "train": {"dataset": "scenes", "split": "train"},
            "branch": {"embedding_dim": 16},
            "identities_per_batch": 4,
            "shots": 2,
            "phases": [{"epochs": 1, "objectives": [{"kind": "semi_hard_triplet"}]}],
        },
        "detections": {"max_per_image": 5},
        "gallery": {"untrained": False},
        "evaluation": {"test": {"dataset": "scenes", "split": "test"}, "ground_truth_boxes": False},
        "run": {"device": "cpu", "threads": 1},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(small))
    return path


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the start of forty processes; stages in processes of their own are tested elsewhere."""

    class Here:
        def __init__(self, target: str, task: dict[str, Any], *, log_path: Path, imports: list[str]) -> None:
            self.task = task

        def result(self, **_: object) -> object:
            return making.make(self.task, Watched())

    monkeypatch.setattr(making, "start_process", Here)
