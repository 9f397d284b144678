"""The whole method at its smallest: a few drawn scenes, and a config whose stages take a second or two each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from data_catalog.synthetic import PrwSpec, write_prw

SCENES = PrwSpec(
    train_images=12,
    test_images=8,
    width=96,
    height=96,
    train_identities=6,
    test_identities=4,
    cameras=2,
    people=(2, 3),
)
STAGES = ("ingest:scenes", "detector", "features", "reid", "detections", "gallery", "evaluation", "report")


def draw_tiny_scenes(root: Path) -> None:
    write_prw(root, SCENES, seed=5)


def tiny_settings(scenes: Path, store: str) -> dict[str, Any]:
    """The config as data, to be changed and written by a test."""
    train = {"dataset": "scenes", "split": "train"}
    return {
        "store": store,
        "datasets": {"scenes": {"adapter": "prw", "root": str(scenes)}},
        "detector": {
            "train": [train],
            "model": {
                "backbone": "resnet18",
                "fpn_channels": 16,
                "image_width": 96,
                "image_height": 96,
                "norm": "batch",
                "initial_weights": None,
                "head_convolutions": 1,
                "anchor_sizes": [16, 32, 64, 128, 256],
                "anchor_ratios": [2.0],
            },
            "training": {"steps": 12, "batch_size": 2, "lr": 0.005, "schedule": {"warmup_steps": 2}},
        },
        "reid": {
            "train": train,
            "variant": "j3",
            "roi_height": 8,
            "roi_width": 4,
            "identities_per_batch": 3,
            "shots": 2,
            "lr": 1e-3,
            "branch": {"embedding_dim": 16},
            "phases": [
                {"epochs": 2, "objectives": [{"kind": "semi_hard_triplet"}]},
                {"epochs": 2, "objectives": [{"kind": "batch_hard_triplet"}]},
            ],
        },
        "detections": {"max_per_image": 10},
        "evaluation": {"test": {"dataset": "scenes", "split": "test"}, "protocol": "prw"},
        "report": {"scenes": 1, "queries": 2},
        "run": {"device": "cpu", "threads": 1},
    }


def write_tiny_config(folder: Path, scenes: Path, **changes: Any) -> Path:
    """`folder`/tiny.yaml with its store beside it; `changes` replace top-level fields."""
    settings = tiny_settings(scenes, "store") | changes
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path
