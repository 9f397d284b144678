"""`detections`: a test view and the detector -> detections, and pooled features of them, queries and truth.

Rows of the feature store are, image by image: kept detections, query boxes, ground-truth boxes;
`rows.parquet` says which is which.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.row_digests import digest_rows
from flows.config.models import Config, EvaluationSection
from flows.plan.views import SnapshotView
from flows.stages.base import (
    ArtifactInput,
    InputRef,
    Inputs,
    Made,
    Maker,
    Nothing,
    Stage,
    StageContext,
    ViewInput,
    last_block,
    processors_of,
    view_input,
)
from personsearch_core.recipes import DetectionsRecipe
from storage.digests import digest_parts
from storage.durable import flush

if TYPE_CHECKING:
    from personsearch_core.data.scenes import Scene
    from personsearch_core.pooling import SceneDetections

VERSION = 3
ROWS = "rows.parquet"
DETECTION, QUERY, TRUTH = "detection", "query", "truth"
BLOCK_IMAGES = 64
"""An interrupted stage resumes at a multiple of this many images."""

ROWS_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("role", pa.dictionary(pa.int32(), pa.string())),
        ("image_id", pa.string()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("score", pa.float32()),
        ("box_id", pa.string()),
    ]
)


class DetectionsInputs(Inputs):
    test: ViewInput
    detector: ArtifactInput


def stage(config: Config, suffix: str, entry: EvaluationSection) -> Stage:
    return Stage(
        name=f"detections{suffix}",
        kind="detections",
        version=VERSION,
        recipe=config.detections_recipe().model_dump(mode="json"),
        maker="flows.stages.detections:MAKER",
        inputs={"test": view_input(config, entry.test, "test"), "detector": InputRef("detector")},
        processors=processors_of(config),
        resume_point=last_block,
    )


def make(context: StageContext[DetectionsRecipe, DetectionsInputs, Nothing]) -> Made:
    """Detect block by block of images, then join the blocks into one feature store."""
    from flows.config.devices import stage_device
    from personsearch_core.models.weights import load_detector
    from personsearch_core.pooling import detect_scenes
    from storage.feature_store import FILES_FILE, read_file_digests

    recipe, test = context.recipe, context.inputs.test
    scenes, queries = test.scenes(), _queries_by_image(test)
    device = stage_device(context.processors)
    detector = load_detector(context.inputs.detector.path).to(device).eval()
    blocks = context.work / "blocks"
    blocks.mkdir(exist_ok=True)
    parts = [scenes[start : start + BLOCK_IMAGES] for start in range(0, len(scenes), BLOCK_IMAGES)]
    for number, part in enumerate(parts):
        if not _is_done(blocks, number):
            extra = [np.concatenate([queries.get(scene.image_id, _NO_BOXES), scene.boxes]) for scene in part]
            found = detect_scenes(detector, recipe, part, extra)
            _write_block(blocks, number, part, found, [len(queries.get(s.image_id, ())) for s in part])
        context.reached(number + 1, len(parts))
    rows, array = _join_blocks(context.work, blocks, len(parts), recipe, context.attributes())
    shutil.rmtree(blocks)
    counts = {role: int(np.sum(rows["role"].to_numpy(zero_copy_only=False) == role)) for role in _ROLES}
    digest = digest_parts({"features": array, "rows": digest_rows(rows)})
    metrics = {"images": len(scenes), **counts}
    return Made(digest, metrics, scratch=(FILES_FILE,), file_digests=read_file_digests(context.work))


MAKER = Maker(DetectionsRecipe, DetectionsInputs, Nothing, make)

_ROLES = (DETECTION, QUERY, TRUTH)
_NO_BOXES = np.zeros((0, 4), np.float32)


def _queries_by_image(test: SnapshotView) -> dict[str, np.ndarray]:
    table = test.view.query_boxes
    boxes = np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    grouped: dict[str, list[np.ndarray]] = {}
    for image_id, box in zip(table["image_id"].to_pylist(), boxes, strict=True):
        grouped.setdefault(image_id, []).append(box)
    return {image_id: np.stack(part) for image_id, part in grouped.items()}


def _done(blocks: Path, number: int) -> Path:
    return blocks / f"{number:06d}.done"


def _is_done(blocks: Path, number: int) -> bool:
    """Whether a block is whole; a kill while finished blocks were removed leaves some files of some."""
    return all((blocks / f"{number:06d}{suffix}").exists() for suffix in (".done", ".parquet", ".npy"))


def _write_block(
    blocks: Path,
    number: int,
    scenes: Sequence[Scene],
    found: Iterator[SceneDetections],
    queries: Sequence[int],
) -> None:
    """Rows and features of some images; the `.done` file last, so that a block is whole or is made again."""
    columns: dict[str, list[Any]] = {name: [] for name in ROWS_SCHEMA.names}
    features = []
    for scene, result, n_queries in zip(scenes, found, queries, strict=True):
        n_found, n_truth = len(result.boxes), len(scene.boxes)
        boxes = np.concatenate([result.boxes, result.extra_boxes])
        features += [result.features, result.extra_features]
        columns["role"] += [DETECTION] * n_found + [QUERY] * n_queries + [TRUTH] * n_truth
        columns["image_id"] += [scene.image_id] * len(boxes)
        columns["score"] += [*result.scores.tolist(), *[None] * (n_queries + n_truth)]
        columns["box_id"] += [*[None] * (n_found + n_queries), *scene.box_ids]
        for position, name in enumerate(("x1", "y1", "x2", "y2")):
            columns[name] += boxes[:, position].tolist()
    columns["row"] = [0] * len(columns["role"])
    rows, pooled = blocks / f"{number:06d}.parquet", blocks / f"{number:06d}.npy"
    pq.write_table(pa.table(columns, schema=ROWS_SCHEMA), rows)
    np.save(pooled, np.concatenate(features))
    # On the disk before `.done` says so: a power cut must not leave the mark of a block without the block.
    flush(rows)
    flush(pooled)
    _done(blocks, number).touch()


def _join_blocks(
    work: Path, blocks: Path, count: int, recipe: DetectionsRecipe, attributes: Mapping[str, Any]
) -> tuple[pa.Table, str]:
    """One table of rows and one feature store out of all blocks -> (rows, digest of the array)."""
    from storage.feature_store import create_features, finish_features, write_index

    tables = [pq.read_table(blocks / f"{number:06d}.parquet", schema=ROWS_SCHEMA) for number in range(count)]
    rows = pa.concat_tables(tables).unify_dictionaries()
    rows = rows.set_column(0, ROWS_SCHEMA.field("row"), pa.array(np.arange(len(rows))))
    arrays = [np.load(blocks / f"{number:06d}.npy", mmap_mode="r") for number in range(count)]
    with create_features(
        work,
        len(rows),
        arrays[0].shape[1:],
        recipe.dtype,
        compression=recipe.compression,
        attributes=attributes,
    ) as writer:
        start = 0
        for block in _regrouped(arrays, writer.layout.rows_per_shard):
            writer.write(start, block)
            start += len(block)
    write_index(work, rows)
    pq.write_table(rows, work / ROWS)
    return rows, finish_features(work)


def _regrouped(arrays: Sequence[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The rows of all arrays in their order, in blocks of `size`; the last may be short."""
    pending: list[np.ndarray] = []
    held = 0
    for array in arrays:
        offset = 0
        while offset < len(array):
            taken = array[offset : offset + size - held]
            pending.append(taken)
            held += len(taken)
            offset += len(taken)
            if held == size:
                yield np.concatenate(pending)
                pending, held = [], 0
    if pending:
        yield np.concatenate(pending)
