"""The bits of an image's rows do not depend on the rest of its batch: so growth may take rows over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from personsearch_core.boxes import place_image
from personsearch_core.data.scenes import Scene
from personsearch_core.models.anchors import AnchorGrid
from personsearch_core.models.candidates import ImageDetections, best_candidates, picture_boxes, suppress
from personsearch_core.models.compute import has_bf16, neighbours_count
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.pooling.detections import detect_scenes
from personsearch_core.pooling.extraction import extract_rows, extract_shards, feature_rows
from personsearch_core.recipes import (
    Compute,
    DetectionsRecipe,
    DetectorModel,
    FeaturesRecipe,
    FeatureView,
    RoiRecipe,
)
from tests.personsearch_core.scene_files import TINY, write_scenes

CPU = torch.device("cpu")
SETTINGS = {
    "fp32": Compute(),
    "channels last": Compute(channels_last=True),
    "bf16": Compute(precision="bf16", channels_last=True),
}
BATCH = 4


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 9, people=3)


@pytest.fixture(params=[("fp32", 1), ("fp32", 2), ("channels last", 1), ("bf16", 1)], ids=str)
def compute(request: pytest.FixtureRequest) -> Iterator[Compute]:
    """How to compute, with that many threads."""
    name, threads = request.param
    if name == "bf16" and not has_bf16("cpu"):
        pytest.skip("this CPU has no bfloat16 instructions")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    yield SETTINGS[name]
    torch.set_num_threads(before)


def _detector() -> Detector:
    torch.manual_seed(0)
    return build_detector(TINY).eval()


@pytest.mark.parametrize("variant", ["j2", "j4"])
def test_rows_of_features(scenes: list[Scene], compute: Compute, variant: str) -> None:
    recipe = FeaturesRecipe(
        roi=RoiRecipe.model_validate({"variant": variant, "roi_height": 8, "roi_width": 4}),
        dtype="float32",
        boxes="all",
        views=(FeatureView(), FeatureView(kind="mirrored")),
        batch_images=BATCH,
        compute=compute,
    )
    assert neighbours_count(compute, CPU) is None
    detector = _detector()
    plan = feature_rows(recipe, scenes, detector)
    together = np.concatenate([block for _, block in extract_shards(detector, recipe, plan, [0])])
    for rows in ([40], [3, 4, 5], [2, 7, 8, 21, 22, 47, 50], list(range(6, 54))):
        alone = np.concatenate(list(extract_rows(detector, recipe, plan, np.array(rows))))
        assert alone.tobytes() == together[rows].tobytes()


def test_detections_and_their_rows(scenes: list[Scene], compute: Compute) -> None:
    recipe = DetectionsRecipe(
        roi=RoiRecipe(roi_height=8, roi_width=4),
        dtype="float32",
        score_threshold=0.0,
        max_per_image=20,
        batch_images=BATCH,
        compute=compute,
    )
    detector = _detector()

    def found(numbers: Sequence[int]) -> dict[int, bytes]:
        chosen = [scenes[number] for number in numbers]
        people = detect_scenes(detector, recipe, chosen, [scene.boxes for scene in chosen])
        return {number: _bytes(each) for number, each in zip(numbers, people, strict=True)}

    together = found(range(9))
    for numbers in ([8, 6, 4, 2, 0, 1, 3, 5, 7], [5], [7, 2, 4]):
        assert found(numbers) == {number: together[number] for number in numbers}


def _bytes(found: object) -> bytes:
    names = ("boxes", "scores", "features", "extra_features")
    return b"".join(getattr(found, name).tobytes() for name in names)


@pytest.mark.parametrize(("width", "height", "batch"), [(640, 640, 8), (500, 333, 7)])
def test_the_choice_among_many_anchors(compute: Compute, width: int, height: int, batch: int) -> None:
    """More numbers than one thread takes: where the threads' parts meet, kernels fall back to other code."""
    model = DetectorModel(initial_weights=None, norm="batch", image_width=width, image_height=height)
    grid = AnchorGrid(model)
    anchors, levels = grid.anchors(height, width, CPU), grid.levels(height, width)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, len(anchors), generator=generator)
    deltas = torch.randn(batch, len(anchors), 4, generator=generator)

    placements = [place_image(width, height, width, height)] * batch
    pictures = picture_boxes(placements, torch.empty(batch, 3, height, width, dtype=torch.uint8))

    def chosen(order: list[int]) -> list[ImageDetections]:
        return suppress(
            best_candidates(logits[order], deltas[order], anchors, levels, pictures),
            batch,
            score_threshold=0.0,
            nms_threshold=0.99,
            max_per_image=5000,
        )

    straight, reverse = chosen([*range(batch)]), chosen([*reversed(range(batch))])
    for one, other in zip(straight, reversed(reverse), strict=True):
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_it_is_not_claimed(tmp_path: Path) -> None:
    """And a shard has the same rows whichever shards are computed with it."""
    gpu = torch.device("cuda")
    assert all(neighbours_count(each, gpu) is not None for each in SETTINGS.values())
    scenes, detector = write_scenes(tmp_path, 90, people=3), _detector().to(gpu)
    recipe = FeaturesRecipe(roi=RoiRecipe(roi_height=8, roi_width=4), boxes="all", batch_images=BATCH)
    plan = feature_rows(recipe, scenes, detector)
    together = dict(extract_shards(detector, recipe, plan, [0, 1]))
    alone = dict(extract_shards(detector, recipe, plan, [1]))
    assert alone[1].tobytes() == together[1].tobytes()
