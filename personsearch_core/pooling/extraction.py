"""Pooled features of ground-truth boxes: which rows there are, and how a shard of them is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from personsearch_core.boxes import Boxes, Placement, place_image
from personsearch_core.data.decoding import read_scene, render
from personsearch_core.data.prefetch import decode_threads, prefetch
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.compute import batch_on, model_device, prepare
from personsearch_core.models.detector import Detector
from personsearch_core.pooling.rois import (
    clipped_rois,
    crop_people,
    pool_shared_map,
    roi_boxes,
    row_shape,
    to_stored,
)
from personsearch_core.recipes import DetectorModel, FeaturesRecipe
from personsearch_core.training.optimisation import autocast

SHARD_ROWS = 256
"""Rows of the feature store that are computed together."""


@dataclass(frozen=True, eq=False)
class RowPlan:
    """Content of each row of a feature store, in the store's order: by scene, then view, then box.

    scene, box: indices into the scenes and their boxes. view: kind of the view; copy: its number (jittered).
    rois: (N, 4) float32, original pixels, clipped to the image. row_shape: (C, H, W).
    """

    scenes: Sequence[Scene]
    row_shape: tuple[int, int, int]
    scene: NDArray[np.int64]
    box: NDArray[np.int64]
    view: NDArray[np.str_]
    copy: NDArray[np.int64]
    rois: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scene)

    @property
    def rows_per_shard(self) -> int:
        return SHARD_ROWS

    @property
    def n_shards(self) -> int:
        return -(-len(self) // SHARD_ROWS)

    def rows_of(self, shard: int) -> slice:
        return slice(shard * SHARD_ROWS, min(len(self), (shard + 1) * SHARD_ROWS))

    def index_table(self, *, dataset: str, split: str) -> pa.Table:
        """`index.parquet` of the feature store: who is on each row, and where it was taken from."""
        owners = [self.scenes[scene] for scene in self.scene]
        corners = {f"roi_{name}": self.rois[:, i] for i, name in enumerate(("x1", "y1", "x2", "y2"))}
        return pa.table(
            {
                "row": pa.array(np.arange(len(self)), pa.int64()),
                "box_id": pa.array(_picked(owners, self.box, "box_ids"), pa.string()),
                "image_id": pa.array([owner.image_id for owner in owners], pa.string()),
                "person_id": pa.array(_picked(owners, self.box, "person_ids"), pa.string()),
                "camera_id": pa.array([owner.camera_id for owner in owners], pa.int16()),
                "dataset": pa.array([dataset] * len(self), pa.string()),
                "split": pa.array([split] * len(self), pa.string()),
                "view": pa.array(self.view.tolist(), pa.string()),
                "copy": pa.array(self.copy, pa.int32()),
                **{name: pa.array(column, pa.float32()) for name, column in corners.items()},
            }
        )


def _picked(owners: Sequence[Scene], boxes: NDArray[np.int64], field: str) -> list[str | None]:
    return [getattr(owner, field)[box] for owner, box in zip(owners, boxes, strict=True)]


def feature_rows(
    recipe: FeaturesRecipe, scenes: Sequence[Scene], detector: Detector | None = None
) -> RowPlan:
    """Plan the rows: all boxes except ignore regions; only identified people unless the recipe says `all`.

    j2-j4 need the detector whose map they pool from; disj does not.
    """
    rows: list[tuple[int, int, str, int]] = []
    rois: list[Boxes] = []
    for index, scene in enumerate(scenes):
        wanted = [
            box
            for box in range(len(scene.boxes))
            if not scene.ignore[box] and (recipe.boxes == "all" or scene.person_ids[box] is not None)
        ]
        if not wanted:
            continue
        for number, view in enumerate(recipe.views):
            for copy in range(view.rows):
                boxes = scene.boxes[wanted].astype(np.float32)
                if view.kind == "jittered":
                    rng = np.random.default_rng([recipe.seed, index, number, copy])
                    boxes = _jittered(boxes, view.shift, view.scale, rng)
                rois.append(clipped_rois(boxes, scene.width, scene.height, recipe.roi))
                rows.extend((index, box, view.kind, copy) for box in wanted)
    scene_index, box_index, view_kind, copies = zip(*rows, strict=True) if rows else ((), (), (), ())
    return RowPlan(
        scenes=scenes,
        row_shape=row_shape(recipe.roi, None if detector is None else detector.model),
        scene=np.array(scene_index, dtype=np.int64),
        box=np.array(box_index, dtype=np.int64),
        view=np.array(view_kind, dtype=np.str_),
        copy=np.array(copies, dtype=np.int64),
        rois=np.concatenate(rois).astype(np.float32) if rois else np.empty((0, 4), dtype=np.float32),
    )


def _jittered(boxes: Boxes, shift: float, scale: float, rng: np.random.Generator) -> Boxes:
    """Move each box by up to `shift` of its size and resize it by up to `scale`, about its centre."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + rng.uniform(-shift, shift, size=sizes.shape) * sizes
    halves = sizes / 2 * (1 + rng.uniform(-scale, scale, size=(len(boxes), 1)))
    return np.concatenate([centres - halves, centres + halves], axis=1).astype(boxes.dtype)


class _Request(NamedTuple):
    """Rows of one shard that come from one image, mirrored or not."""

    shard: int
    scene: int
    mirrored: bool
    rows: NDArray[np.int64]


def extract_shards(
    detector: Detector | None,
    recipe: FeaturesRecipe,
    scenes: Sequence[Scene],
    plan: RowPlan,
    shards: Iterable[int],
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """(shard, its rows (n <= 256, C, H, W) in the recipe's dtype) for each requested shard.

    A shard's content depends on the shard alone: its images form batches of their own, and an image whose
    boxes span two shards is computed for each. Images are decoded ahead, across shards. Computes on the
    detector's device; disj needs no detector. Raises PersonSearchError if a value overflows float16.
    """
    wanted = list(shards)
    requests = [request for shard in wanted for request in _requests(plan, shard)]
    if recipe.roi.variant == "disj":
        answers = _cropped(recipe, scenes, plan, requests)
    elif detector is not None:
        answers = _pooled(detector, recipe, scenes, plan, requests)
    else:
        raise PersonSearchError(f"features of {recipe.roi.variant} need a detector")
    for shard in wanted:
        span = plan.rows_of(shard)
        block = np.empty((span.stop - span.start, *plan.row_shape), dtype=recipe.dtype)
        missing = len(block)
        while missing:
            rows, features = next(answers)
            block[rows - span.start] = features
            missing -= len(rows)
        yield shard, block


def extract_shard(
    detector: Detector | None, recipe: FeaturesRecipe, scenes: Sequence[Scene], plan: RowPlan, shard: int
) -> NDArray[np.generic]:
    """One shard's rows; see `extract_shards`."""
    return next(extract_shards(detector, recipe, scenes, plan, [shard]))[1]


def _requests(plan: RowPlan, shard: int) -> Iterator[_Request]:
    span = plan.rows_of(shard)
    rows = np.arange(span.start, span.stop)
    images = zip(plan.scene[span].tolist(), (plan.view[span] == "mirrored").tolist(), strict=True)
    for (scene, mirrored), group in groupby(zip(images, rows, strict=True), key=lambda pair: pair[0]):
        yield _Request(shard, scene, mirrored, np.array([row for _, row in group]))


Answer = tuple[NDArray[np.int64], NDArray[np.generic]]
"""Row numbers and their content."""


def _cropped(
    recipe: FeaturesRecipe, scenes: Sequence[Scene], plan: RowPlan, requests: Sequence[_Request]
) -> Iterator[Answer]:
    def crop(request: _Request) -> Answer:
        image = read_scene(scenes[request.scene])
        crops = crop_people(image, plan.rois[request.rows], recipe.roi, request.mirrored)
        return request.rows, crops.numpy()

    return prefetch(crop, requests, threads=decode_threads(), ahead=4 * recipe.batch_images)


def _pooled(
    detector: Detector,
    recipe: FeaturesRecipe,
    scenes: Sequence[Scene],
    plan: RowPlan,
    requests: Sequence[_Request],
) -> Iterator[Answer]:
    detector = prepare(detector.eval(), recipe.compute)
    device = model_device(detector)

    def decode(request: _Request) -> tuple[Tensor, Placement]:
        return place_scene(scenes[request.scene], detector.model, request.mirrored)

    images = prefetch(decode, requests, threads=decode_threads(), ahead=4 * recipe.batch_images)
    for shard, group in groupby(requests, key=lambda request: request.shard):
        of_shard = list(group)
        for first in range(0, len(of_shard), recipe.batch_images):
            batch = of_shard[first : first + recipe.batch_images]
            placed = [next(images) for _ in batch]
            rois = [
                roi_boxes(plan.rois[request.rows], placement, recipe.roi)
                for request, (_, placement) in zip(batch, placed, strict=True)
            ]
            inputs = batch_on(device, [image for image, _ in placed], recipe.compute, recipe.batch_images)
            with torch.inference_mode(), autocast(recipe.compute, device):
                pooled = pool_shared_map(detector.shared_maps(inputs, recipe.roi.variant), rois, recipe.roi)
            rows = np.concatenate([request.rows for request in batch])
            yield rows, to_stored(pooled, recipe.dtype, f"features, shard {shard}")


def place_scene(scene: Scene, model: DetectorModel, mirrored: bool = False) -> tuple[Tensor, Placement]:
    """Decode a scene onto the network's input: (uint8 (3, H, W), its placement)."""
    placement = place_image(
        scene.width, scene.height, model.image_width, model.image_height, model.resize, mirrored=mirrored
    )
    return render(read_scene(scene), placement), placement
