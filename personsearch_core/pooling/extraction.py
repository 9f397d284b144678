"""Pooled features of ground-truth boxes: which rows there are, and how a shard of them is computed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from personsearch_core.boxes import Boxes
from personsearch_core.data.decoding import read_scene
from personsearch_core.data.network_input import PlacedImage, decoded, place_scene, require_decoder
from personsearch_core.data.prefetch import (
    NetworkInputs,
    brought,
    decode_threads,
    in_batches,
    in_thread,
    prefetch,
)
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.compute import autocast, batch_on, model_device, neighbours_count, prepare
from personsearch_core.models.detector import Detector
from personsearch_core.pooling.rois import (
    clipped_rois,
    crop_people,
    pool_shared_map,
    roi_boxes,
)
from personsearch_core.pooling.stored import PooledRows, in_blocks, stored_rows
from personsearch_core.recipes import FeaturesRecipe

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
    def n_shards(self) -> int:
        return -(-len(self) // SHARD_ROWS)

    def rows_of(self, shard: int) -> slice:
        """The rows of a shard."""
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
    disj = recipe.roi.variant == "disj"
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
        row_shape=recipe.roi.row_shape("" if disj else _required(detector, recipe).model.backbone),
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
    """Rows that come from one image, mirrored or not, and are computed together."""

    scene: int
    mirrored: bool
    rows: NDArray[np.int64]


_Placed = Sequence[tuple[_Request, PlacedImage]]


def extract_shards(
    detector: Detector | None, recipe: FeaturesRecipe, plan: RowPlan, shards: Iterable[int]
) -> Generator[tuple[int, NDArray[np.generic]]]:
    """(shard, its rows (n <= 256, C, H, W) in the recipe's dtype) for each requested shard.

    A shard's content depends on the shard alone: where neighbours in a batch count, its images form batches
    of their own. An image whose boxes span two shards is computed for each. Images are decoded ahead, across
    shards. Computes on the detector's device; disj needs no detector. On a GPU, a thread computes the next
    shard while the caller has one. Raises PersonSearchError if a value overflows float16.
    """
    wanted = list(shards)
    rows_of = [np.arange(len(plan))[plan.rows_of(shard)] for shard in wanted]
    groups = [_requests(plan, rows) for rows in rows_of]
    device = torch.device("cpu") if detector is None else model_device(detector)
    if detector is not None and neighbours_count(recipe.compute, device) is None:
        groups = [list(chain.from_iterable(groups))]
    parts = _parts(detector, recipe, plan, groups)
    with ExitStack() as stack:
        blocks = stack.enter_context(closing(in_blocks(parts, [len(rows) for rows in rows_of])))
        if device.type == "cuda":
            blocks = stack.enter_context(closing(in_thread(blocks, ahead=1)))
        for shard, block in zip(wanted, blocks, strict=True):
            yield shard, block.here(f"features, shard {shard}")


def extract_rows(
    detector: Detector | None, recipe: FeaturesRecipe, plan: RowPlan, rows: NDArray[np.int64]
) -> Iterator[NDArray[np.generic]]:
    """Some rows of the plan (n,), ascending, in parts (m, C, H, W) that follow each other.

    A row has the bits that `extract_shards` gives it unless `neighbours_count`.
    """
    for part in _parts(detector, recipe, plan, [_requests(plan, rows)]):
        yield part.here("features")


def extract_shard(
    detector: Detector | None, recipe: FeaturesRecipe, plan: RowPlan, shard: int
) -> NDArray[np.generic]:
    """One shard's rows; see `extract_shards`."""
    return next(extract_shards(detector, recipe, plan, [shard]))[1]


def _requests(plan: RowPlan, rows: NDArray[np.int64]) -> list[_Request]:
    images = zip(plan.scene[rows].tolist(), (plan.view[rows] == "mirrored").tolist(), strict=True)
    return [
        _Request(scene, mirrored, np.array([row for _, row in group]))
        for (scene, mirrored), group in groupby(zip(images, rows, strict=True), key=lambda pair: pair[0])
    ]


def _parts(
    detector: Detector | None, recipe: FeaturesRecipe, plan: RowPlan, groups: Sequence[Sequence[_Request]]
) -> Iterator[PooledRows]:
    """The rows of all requests, in order; each group forms batches of its own."""
    if recipe.roi.variant == "disj":
        return _cropped(recipe, plan, chain.from_iterable(groups))
    return _pooled(_required(detector, recipe), recipe, plan, groups)


def _required(detector: Detector | None, recipe: FeaturesRecipe) -> Detector:
    if detector is None:
        raise PersonSearchError(f"features of {recipe.roi.variant} need a detector")
    return detector


def _cropped(recipe: FeaturesRecipe, plan: RowPlan, requests: Iterable[_Request]) -> Iterator[PooledRows]:
    def crop(request: _Request) -> PooledRows:
        image = read_scene(plan.scenes[request.scene])
        return PooledRows(crop_people(image, plan.rois[request.rows], recipe.roi, request.mirrored))

    return prefetch(crop, requests, threads=decode_threads(), ahead=4 * recipe.batch_images)


def _pooled(
    detector: Detector, recipe: FeaturesRecipe, plan: RowPlan, groups: Sequence[Sequence[_Request]]
) -> Iterator[PooledRows]:
    detector = prepare(detector.eval(), recipe.compute)
    device = model_device(detector)
    require_decoder(detector.model, device)
    full = neighbours_count(recipe.compute, device) is None

    def decode(request: _Request) -> tuple[_Request, PlacedImage]:
        scene = plan.scenes[request.scene]
        return request, place_scene(scene, detector.model, mirrored=request.mirrored)

    def bring(batch: _Placed) -> NetworkInputs[_Placed]:
        images = decoded([placed.pixels for _, placed in batch], device)
        return NetworkInputs(batch_on(device, images, recipe.compute, size, full=full), batch)

    size = recipe.batch_images
    placed = prefetch(decode, chain.from_iterable(groups), threads=decode_threads(), ahead=4 * size)
    batches = ([next(placed) for _ in some] for group in groups for some in in_batches(group, size))
    with closing(brought(batches, bring, device)) as arrived:
        for inputs in arrived:
            batch = inputs.batch
            rois = [roi_boxes(plan.rois[request.rows], each.placement, recipe.roi) for request, each in batch]
            with torch.inference_mode(), autocast(recipe.compute, device):
                shared = detector.shared_maps(inputs.images, recipe.roi.variant)
                pooled = pool_shared_map(shared, rois, recipe.roi)
            where = f"features, rows {batch[0][0].rows[0]} to {batch[-1][0].rows[-1]}"
            yield stored_rows(pooled, recipe.dtype, where)
