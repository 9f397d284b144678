from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.pooling import extraction
from personsearch_core.pooling.extraction import extract_shard, extract_shards, feature_rows
from personsearch_core.recipes import FeaturesRecipe, FeatureView, RoiRecipe
from tests.personsearch_core.scene_files import TINY, write_scenes

ROI = RoiRecipe(variant="j3", roi_height=8, roi_width=4)
ALL_VIEWS = (FeatureView(), FeatureView(kind="mirrored"), FeatureView(kind="jittered", copies=2))
RECIPE = FeaturesRecipe(roi=ROI, dtype="float32", boxes="all", views=ALL_VIEWS, batch_images=3)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return build_detector(TINY).eval()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 7, people=3)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "SHARD_ROWS", 16)


def test_rows_go_by_scene_then_view_then_box(detector: Detector, scenes: list[Scene]) -> None:
    plan = feature_rows(RECIPE, scenes, detector)
    assert len(plan) == 7 * 3 * 4 and plan.row_shape == (128, 8, 4) and plan.n_shards == 6
    assert plan.scene[:12].tolist() == [0] * 12
    assert plan.view[:12].tolist() == ["plain"] * 3 + ["mirrored"] * 3 + ["jittered"] * 6
    assert plan.box[:12].tolist() == [0, 1, 2] * 4
    assert plan.copy[:12].tolist() == [0] * 9 + [1] * 3
    np.testing.assert_array_equal(plan.rois[:3], scenes[0].boxes)


def test_jittered_boxes_stay_near_their_own_and_are_what_they_were(
    detector: Detector, scenes: list[Scene]
) -> None:
    view = FeatureView(kind="jittered", copies=40, shift=0.1, scale=0.2)
    recipe = RECIPE.model_copy(update={"views": (view,)})
    # Far from the borders, where a ROI is clipped.
    boxes = np.array([[40, 20, 60, 60], [70, 30, 90, 50]], np.float32)
    scene = replace(
        scenes[0], boxes=boxes, ignore=np.zeros(2, bool), box_ids=("a", "b"), person_ids=("1", "2")
    )
    rois = feature_rows(recipe, [scene], detector).rois.reshape(40, 2, 4)
    sizes, own = rois[..., 2:] - rois[..., :2], boxes[:, 2:] - boxes[:, :2]
    moved = ((rois[..., :2] + rois[..., 2:]) - (boxes[:, :2] + boxes[:, 2:])) / 2 / own
    assert 0.09 < np.abs(moved).max() <= 0.1001 and 0.19 < np.abs(sizes / own - 1).max() <= 0.2001
    assert len(np.unique(rois, axis=0)) == 40
    np.testing.assert_array_equal(feature_rows(recipe, [scene], detector).rois.reshape(40, 2, 4), rois)
    np.testing.assert_allclose(rois[1, 0], [40.303276, 23.64831, 58.082867, 59.207485], rtol=1e-6)


def test_margins_widen_a_roi_within_its_image(detector: Detector, scenes: list[Scene]) -> None:
    recipe = RECIPE.model_copy(update={"roi": ROI.model_copy(update={"margin": 0.25})})
    scene = replace(
        scenes[0],
        boxes=np.array([[40, 20, 60, 60], [2, 30, 42, 78]], np.float32),
        ignore=np.zeros(2, bool),
        box_ids=("a", "b"),
        person_ids=("1", "2"),
    )
    rois = feature_rows(recipe, [scene], detector).rois[:2]
    np.testing.assert_array_equal(rois, [[35, 10, 65, 70], [0, 18, 52, 80]])


def test_only_known_people_unless_all_are_wanted(scenes: list[Scene]) -> None:
    plain = RECIPE.model_copy(update={"views": (FeatureView(),), "boxes": "identified"})
    assert len(feature_rows(plain, scenes, build_detector(TINY))) == 7 * 2


def test_the_index_says_who_is_on_each_row(detector: Detector, scenes: list[Scene]) -> None:
    plan = feature_rows(RECIPE, scenes, detector)
    index = plan.index_table(dataset="d", split="train")
    row = index.slice(4, 1).to_pylist()[0]
    assert row["box_id"] == "a0:1" and row["image_id"] == "a0" and row["person_id"] == scenes[0].person_ids[1]
    assert (row["view"], row["dataset"], row["split"]) == ("mirrored", "d", "train")


@pytest.mark.parametrize("variant", ["j3", "disj"])
def test_a_shard_is_the_same_whoever_computes_it(
    detector: Detector, scenes: list[Scene], variant: str
) -> None:
    recipe = RECIPE
    if variant == "disj":
        roi = RoiRecipe(variant="disj", roi_height=32, roi_width=16)
        recipe = RECIPE.model_copy(update={"roi": roi, "dtype": "uint8"})
    model = None if variant == "disj" else detector
    plan = feature_rows(recipe, scenes, model)
    together = dict(extract_shards(model, recipe, plan, range(plan.n_shards)))
    assert [len(block) for block in together.values()] == [16, 16, 16, 16, 16, 4]
    for shard in (5, 2):
        alone = extract_shard(model, recipe, plan, shard)
        assert alone.tobytes() == together[shard].tobytes()


def test_rows_are_the_boxes_pooled_one_by_one(detector: Detector, scenes: list[Scene]) -> None:
    plan = feature_rows(RECIPE, scenes, detector)
    blocks = extract_shards(detector, RECIPE, plan, range(plan.n_shards))
    features = np.concatenate([block for _, block in blocks])
    single = RECIPE.model_copy(update={"views": (FeatureView(),), "batch_images": 1})
    alone = extract_shard(detector, single, feature_rows(single, scenes[3:4], detector), 0)
    rows = np.flatnonzero((plan.scene == 3) & (plan.view == "plain"))
    np.testing.assert_allclose(features[rows], alone, rtol=1e-4, atol=1e-5)


def test_mirrored_views_come_from_mirrored_images(detector: Detector, scenes: list[Scene]) -> None:
    from PIL import Image, ImageOps

    recipe = RECIPE.model_copy(update={"views": (FeatureView(kind="mirrored"),)})
    (scene,) = scenes[:1]
    found = extract_shard(detector, recipe, feature_rows(recipe, [scene], detector), 0)
    path = Path(scene.path).with_name("mirrored.png")
    ImageOps.mirror(Image.open(scene.path)).save(path)
    boxes = scene.boxes.copy()
    boxes[:, [0, 2]] = scene.width - scene.boxes[:, [2, 0]]
    flipped = Scene(**{**vars(scene), "path": str(path), "boxes": boxes})
    plain = RECIPE.model_copy(update={"views": (FeatureView(),)})
    expected = extract_shard(detector, plain, feature_rows(plain, [flipped], detector), 0)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)


def test_no_people_to_embed_is_an_empty_plan(tmp_path: Path, detector: Detector) -> None:
    plan = feature_rows(RECIPE, write_scenes(tmp_path, 2, people=0), detector)
    assert len(plan) == 0 and plan.n_shards == 0
    assert list(extract_shards(detector, RECIPE, plan, range(0))) == []


def test_shared_maps_need_a_detector(scenes: list[Scene], detector: Detector) -> None:
    with pytest.raises(PersonSearchError, match="need a detector"):
        feature_rows(RECIPE, scenes)
    with pytest.raises(PersonSearchError, match="need a detector"):
        next(extract_shards(None, RECIPE, feature_rows(RECIPE, scenes, detector), [0]))
