"""docs/paper.md states the defaults that the models have, and configs/paper keep to what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config.fields import config_fields
from flows.config.loading import load_config
from flows.studies.reading import is_study
from personsearch_core.recipes import DetectorAugmentation

PROJECT = Path(__file__).resolve().parents[3]
CONFIGS = [path for path in sorted((PROJECT / "configs" / "paper").glob("*.yaml")) if not is_study(path)]

STATED = [
    ("network", "detector.model.backbone", '"resnet50"', "ResNet-50"),
    ("initial weights", "detector.model.initial_weights", '"coco"', "`COCO_V1`"),
    ("norm", "detector.model.norm", '"frozen_batch"', "frozen"),
    ("frozen layers", "detector.model.trainable_layers", "5", "none"),
    ("input", "detector.model.image_width", "640", "640x640"),
    ("input", "detector.model.image_height", "640", "640x640"),
    ("how a scene becomes 640x640", "detector.model.resize", '"letterbox"', "letterbox"),
    ("anchors", "detector.model.anchor_sizes", "[32, 64, 128, 256, 512]", "32 to 512"),
    ("anchors", "detector.model.anchor_ratios", "[0.5, 1.0, 2.0]", "3 ratios"),
    ("classification loss", "detector.loss.focal_alpha", "0.25", "alpha 0.25"),
    ("classification loss", "detector.loss.focal_gamma", "2.0", "gamma 2"),
    ("box loss", "detector.loss.regression", '"smooth_l1"', "smooth L1"),
    ("box loss", "detector.loss.smooth_l1_beta", f"{1 / 9}", "beta 1/9"),
    ("optimiser", "detector.training.optimiser", '"sgd"', "SGD"),
    ("optimiser", "detector.training.momentum", "0.9", "momentum 0.9"),
    ("optimiser", "detector.training.lr", "0.001", "1e-3"),
    ("weight decay", "detector.training.weight_decay", "0.0001", "1e-4"),
    ("batch, epochs", "detector.training.batch_size", "10", "10 images"),
    ("batch, epochs", "detector.training.epochs", "90", "90 epochs"),
    ("length of the warm-up", "detector.training.schedule.warmup_steps", "500", "500 steps"),
    ("length of the warm-up", "detector.training.schedule.warmup_factor", "0.001", "factor of 0.001"),
    ("gradient clipping", "detector.training.gradient_clip", "null", "none"),
    ("number format", "detector.compute.precision", '"fp32"', "float32"),
    ("augmentation", "detector.augmentation.horizontal_flip", "0.5", "default is 0.5"),
    ("which weights are used", "detector.training.keep", '"last"', "the last step"),
    ("pooling operator", "roi.operator", '"roi_align"', "`roi_align`"),
    ("pooling operator", "roi.sampling_ratio", "2", "2x2 samples"),
    ("context around a box", "roi.margin", "0.0", "none"),
    ("its initial weights", "reid.branch.initial_weights", '"detector"', "the detector's blocks"),
    ("its norm", "reid.branch.norm", '"batch"', "batch norm"),
    ("pooling of its last map", "reid.branch.pooling", '"average"', "average"),
    ("stride of its last block", "reid.branch.last_stride", "2", "2, ResNet's"),
    ("embedding", "reid.branch.embedding_dim", "256", "to 256 numbers"),
    ("L2 norm", "reid.branch.normalise", "true", "at test"),
    ("L2 norm", "reid.branch.loss_normalise", "false", "not in the loss"),
    ("batch", "reid.identities_per_batch", "32", "32 identities"),
    ("batch", "reid.shots", "4", "4 boxes"),
    ("optimiser", "reid.optimiser", '"adam"', "Adam"),
    ("optimiser", "reid.lr", "0.0001", "1e-4"),
    ("weight decay", "reid.weight_decay", "0.0", "| 0 |"),
    ("warm-up", "reid.schedule.warmup_steps", "0", "none"),
    ("gradient clipping", "reid.gradient_clip", "null", "none"),
    ("number format", "reid.compute.precision", '"fp32"', "float32"),
    ("decay", "reid.schedule.span", '"run"', "one decay over both phases"),
    ("people without identity", "features.boxes", '"identified"', "not cached"),
    ("people without identity", "reid.unlabelled_per_batch", "0", "not trained on"),
    ("kept detections", "detections.score_threshold", "0.05", "above 0.05"),
    ("kept detections", "detections.nms_threshold", "0.5", "IoU of 0.5"),
    ("kept detections", "detections.max_per_image", "100", "at most 100"),
    ("score threshold of the search", "evaluation[].score_threshold", "0.5", "0.5"),
    ("PRW's gallery", "evaluation[].cross_camera", "false", "query's camera included"),
    ("re-ranking, context matching", "evaluation[].re_ranking", "null", "none"),
    ("re-ranking, context matching", "evaluation[].context_matching", "null", "none"),
    ("number of runs", "detector.seed", "0", "seed 0"),
    ("number of runs", "reid.seed", "0", "seed 0"),
]
"""A row of the page's tables, its field, the field's default, and how the row says it."""


def test_the_page_states_the_defaults() -> None:
    rows = [line for line in (PROJECT / "docs" / "paper.md").read_text().splitlines() if line[:2] == "| "]
    defaults = {field.path: field.default for field in config_fields()}
    assert {field: defaults[field] for _, field, _, _ in STATED} == {
        field: default for _, field, default, _ in STATED
    }
    for row, field, _, words in STATED:
        section = field.partition(".")[0].removesuffix("[]")
        found = [line for line in rows if line.startswith(f"| {row} |") and f"`{section}." in line]
        assert len(found) == 1 and words in found[0], (row, field)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_papers_configs_train_without_augmentation(path: Path) -> None:
    config = load_config(path)
    assert config.detector.augmentation == DetectorAugmentation(horizontal_flip=0.0)
    assert [view.kind for view in config.features.views] == ["plain"]
