"""The whole method at its smallest: a few drawn scenes, and a config whose stages take a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.start import SCENES, TRACKS
from data_catalog.synthetic import write_mot17, write_prw

STAGES = (
    "ingest:scenes",
    "ingest:tracks",
    "detector",
    "features",
    "reid",
    "detections",
    "gallery",
    "evaluation",
    "report",
)


CHECKPOINTS = {"checkpoint_seconds": 0.5}
"""For the section `run` of a training that is to be killed."""


def draw_tiny_data(folder: Path) -> None:
    """PRW's layout under `folder`/prw, MOT17's under `folder`/mot17."""
    write_prw(folder / "prw", SCENES, seed=5)
    write_mot17(folder / "mot17", TRACKS, seed=5)


def tiny_settings(data: Path | str, store: str) -> dict[str, Any]:
    """The config as data, to be changed and written by a test."""
    return {
        "store": store,
        "datasets": {
            "scenes": {"adapter": "prw", "root": f"{data}/prw"},
            "tracks": {"adapter": "mot17", "root": f"{data}/mot17"},
        },
        "detector": {
            "train": [{"dataset": "scenes", "split": "train"}, {"dataset": "tracks", "split": "train"}],
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
        "roi": {"variant": "j3", "roi_height": 8, "roi_width": 4},
        "reid": {
            "train": {"dataset": "scenes", "split": "train"},
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
        "evaluation": {
            "test": {"dataset": "scenes", "split": "test"},
            "protocol": "prw",
            "score_threshold": 0.0,
        },
        "report": {"scenes": 1, "queries": 2},
        "run": {"device": "cpu", "threads": 1},
    }


def write_tiny_config(folder: Path, data: Path | str, **changes: Any) -> Path:
    """`folder`/tiny.yaml with its store next to it; `changes` replace top-level fields."""
    settings = tiny_settings(data, "store") | changes
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path
