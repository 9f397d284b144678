"""`features` from earlier ones: which rows are there already, and the shards that are made of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from flows.stages.earlier import Earlier, Means, means_of
from flows.stages.extraction import Prepared
from personsearch_core.models.compute import model_device, neighbours_count
from personsearch_core.models.weights import weights_digest
from personsearch_core.pooling.extraction import RowPlan, extract_rows
from personsearch_core.recipes import FeaturesRecipe
from storage.feature_store import FeatureWriter, RowCodec
from storage.feature_store.taking_over import fill_shards, missing_rows

_ROI = ("roi_x1", "roi_y1", "roi_x2", "roi_y2")


ELSEWHERE = "the workers of a Dask scheduler may be other machines than this"


def means_of_rows(
    version: int, recipe: FeaturesRecipe, ready: Prepared, dask: str | None, codec: RowCodec | None
) -> Means:
    """What computes a row of features: which boxes and views there are, and how rows are compressed, does not
    change it; how they are encoded does. Crops of disj are cut one by one. `dask`: address of a scheduler
    whose workers compute."""
    elsewhere = None if dask is None else ELSEWHERE
    fields = recipe.model_dump(mode="json", exclude={"boxes", "views", "compression", "seed"})
    if codec is not None:
        fields["codec"] = codec.description
    if ready.detector is None:
        return means_of(version, fields, None, torch.device("cpu"), refusal=elsewhere)
    device = model_device(ready.detector)
    weights = weights_digest(ready.detector, recipe.roi.variant)
    refusal = elsewhere or neighbours_count(recipe.compute, device)
    return means_of(version, fields, weights, device, refusal)


def match_rows(plan: RowPlan, images: Sequence[str], earlier: Earlier) -> np.ndarray:
    """(rows of the plan,) the row of the earlier artifact that has the same content, -1 where there is none.

    A row is a function of its image, mirrored or not, and its box. `images`: the content of each scene.
    """
    index = earlier.index(["image_id", "view", *_ROI])
    known = {content: code for code, content in enumerate(dict.fromkeys(images))}
    names, found = (earlier.images[column].to_pylist() for column in ("image_id", "content"))
    code_of = {name: known.get(content, -1) for name, content in zip(names, found, strict=True)}
    there = _packed(
        np.array([code_of.get(image_id, -1) for image_id in index["image_id"].to_pylist()], np.int64),
        pc.equal(index["view"], "mirrored").to_numpy(),
        np.stack([index[name].to_numpy() for name in _ROI], axis=1),
    )
    scenes = np.array([known[content] for content in images], np.int64)
    wanted = _packed(scenes[plan.scene], plan.view == "mirrored", plan.rois)
    match: np.ndarray = pc.fill_null(pc.index_in(wanted, value_set=there), -1).to_numpy().astype(np.int64)
    return match if len(there.unique()) == len(there) else _in_sequence(match, wanted, there)


def _packed(image: np.ndarray, mirrored: np.ndarray, rois: np.ndarray) -> pa.Array:
    """Each row as 32 bytes: equal bytes are equal rows."""
    numbers = np.stack([image, mirrored], axis=1).astype(np.int64)
    corners = np.ascontiguousarray(rois, np.float32)
    packed = np.concatenate([numbers.view(np.uint8), corners.view(np.uint8)], axis=1)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(packed.shape[1]), len(packed), [None, pa.py_buffer(packed.tobytes())]
    )


def _in_sequence(match: np.ndarray, wanted: pa.Array, there: pa.Array) -> np.ndarray:
    """Of rows that are there twice, the one that follows the last: so whole shards stay whole."""
    match = match.copy()
    for row in range(1, len(match)):
        following = match[row - 1] + 1
        is_there = match[row] != -1 and 0 < following < len(there)
        if is_there and there[following] == wanted[row]:
            match[row] = following
    return match


def take_rows(
    writer: FeatureWriter,
    shards: Sequence[int],
    ready: Prepared,
    recipe: FeaturesRecipe,
    earlier: Earlier,
    *,
    compute: bool,
) -> Generator[int]:
    """Write shards of rows of the earlier artifact, and yield them; see `fill_shards`.

    With `compute`, rows that it does not have are computed here; without, their shards are left.
    """
    layout, match = writer.layout, earlier.match
    if not compute:
        shards = [shard for shard in shards if not len(missing_rows(layout, [shard], match))]
    rows = missing_rows(layout, shards, match)
    computed = extract_rows(ready.detector, recipe, ready.plan, rows)
    yield from fill_shards(writer, shards, match, earlier.source, computed)
