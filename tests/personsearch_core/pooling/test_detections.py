from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from personsearch_core.models.detector import build_detector
from personsearch_core.pooling.detections import detect_scenes
from personsearch_core.pooling.extraction import extract_shard, feature_rows
from personsearch_core.recipes import Compute, DetectionsRecipe, FeaturesRecipe, RoiRecipe
from tests.personsearch_core.scene_files import TINY, write_scenes


@pytest.mark.parametrize("variant", ["j2", "j4", "disj"])
def test_every_box_of_interest_is_described(tmp_path: Path, variant: str) -> None:
    torch.manual_seed(0)
    detector = build_detector(TINY).eval()
    scenes = write_scenes(tmp_path, 5, people=2)
    roi = RoiRecipe(variant=variant, roi_height=8, roi_width=4)  # type: ignore[arg-type]
    dtype = "uint8" if variant == "disj" else "float32"
    recipe = DetectionsRecipe(roi=roi, dtype=dtype, score_threshold=0.0, max_per_image=4, batch_images=2)  # type: ignore[arg-type]
    found = list(detect_scenes(detector, recipe, scenes, [scene.boxes for scene in scenes]))
    assert [people.image_id for people in found] == [scene.image_id for scene in scenes]
    for people, scene in zip(found, scenes, strict=True):
        assert len(people.boxes) == len(people.scores) == len(people.features) <= 4
        assert (np.diff(people.scores) <= 0).all()
        assert (people.boxes >= 0).all() and (people.boxes[:, 2] <= scene.width).all()
        np.testing.assert_array_equal(people.extra_boxes, scene.boxes)
    features = FeaturesRecipe(roi=roi, dtype=dtype, boxes="all", batch_images=2)  # type: ignore[arg-type]
    model = None if variant == "disj" else detector
    stored = extract_shard(model, features, feature_rows(features, scenes, model), 0)
    described = np.concatenate([people.extra_features for people in found])
    np.testing.assert_allclose(described, stored, rtol=1e-4, atol=1e-4)


def test_what_fills_a_batch_up_is_described_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five scenes the last is alone in its batch."""
    monkeypatch.setattr(torch, "compile", lambda method, **_: method)
    torch.manual_seed(0)
    detector, scenes = build_detector(TINY).eval(), write_scenes(tmp_path, 5)
    plain = DetectionsRecipe(
        roi=RoiRecipe(roi_height=8, roi_width=4), dtype="float32", score_threshold=0.0, batch_images=4
    )
    filled = plain.model_copy(update={"compute": Compute(compile=True)})
    boxes = [scene.boxes for scene in scenes]
    pairs = zip(*(detect_scenes(detector, each, scenes, boxes) for each in (filled, plain)), strict=True)
    for found, expected in pairs:
        assert found.image_id == expected.image_id
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(found.extra_features, expected.extra_features, rtol=1e-4, atol=1e-4)
    features = FeaturesRecipe(roi=plain.roi, dtype="float32", boxes="all", batch_images=4)
    rows = feature_rows(features, scenes, detector)
    of_filled = features.model_copy(update={"compute": Compute(compile=True)})
    stored, wanted = (extract_shard(detector, each, rows, 0) for each in (of_filled, features))
    np.testing.assert_allclose(stored, wanted, rtol=1e-4, atol=1e-4)


def test_the_backbone_runs_once_a_batch_and_extras_are_optional(tmp_path: Path) -> None:
    detector = build_detector(TINY).eval()
    passes = []
    detector.backbone.body.conv1.register_forward_hook(lambda *_: passes.append(1))
    recipe = DetectionsRecipe(roi=RoiRecipe(roi_height=8, roi_width=4), score_threshold=0.99, batch_images=2)
    found = list(detect_scenes(detector, recipe, write_scenes(tmp_path, 5)))
    assert len(passes) == 3
    assert all(people.features.shape == (0, 128, 8, 4) for people in found)
    assert all(people.extra_features.shape == (0, 128, 8, 4) for people in found)
