"""Features from elsewhere (`features.use`) in place of those that a detector's map gives.

They stand in for two stages: `features` takes the rows of a training view's people, `detections` those of a
test view's queries and ground truth. Nothing can be detected with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.row_digests import digest_rows
from data_catalog.row_tables import COORDINATES
from flows.config.foreign import BOX_ID, ForeignFeatures, foreign_digest
from flows.config.models import Config
from flows.config.sections import EvaluationSection, ViewRef
from flows.errors import StageError
from flows.stages.base import (
    Inputs,
    Made,
    Maker,
    Stage,
    StageContext,
    ViewInput,
    last_shard,
    view_input,
)
from flows.stages.detected_blocks import QUERY, ROWS_SCHEMA, TRUTH
from flows.stages.detections import ROWS
from flows.stages.features import FeaturesInputs, bytes_of_people, people_of
from personsearch_core.evaluation.settings import settings_of
from personsearch_core.recipes import DetectionsRecipe, FeaturesRecipe
from storage.digests import digest_parts
from storage.feature_store import features_bytes
from storage.space import require_free_space

if TYPE_CHECKING:
    from storage.feature_store import FeatureReader

VERSION = 1
TEST_VERSION = 2
_BOX = ["image_id", *COORDINATES]
SHOWN = 3


class TestInputs(Inputs):
    test: ViewInput


def features_stage(config: Config, name: str, view: ViewRef, foreign: ForeignFeatures) -> Stage:
    """In place of `flows.stages.features`."""
    people, recipe = view_input(config, view, "truth"), config.features_recipe()
    return Stage(
        name=f"features{name}",
        kind="features",
        version=VERSION,
        recipe=recipe.model_dump(mode="json"),
        maker="flows.stages.foreign:FEATURES",
        inputs={"people": people},
        fixed_inputs={"foreign": foreign.digest},
        options=foreign.model_dump(mode="json"),
        resume_point=last_shard,
        bytes_needed=partial(
            bytes_of_people,
            recipe,
            people,
            lambda n_people: features_bytes(n_people, foreign.maps, foreign.dtype),  # there may be more rows
        ),
    )


def test_stage(config: Config, suffix: str, entry: EvaluationSection, foreign: ForeignFeatures) -> Stage:
    """In place of `flows.stages.detections`: without a detection."""
    protocols = tuple(sorted({setting.protocol for setting in settings_of(entry)}))
    return Stage(
        name=f"detections{suffix}",
        kind="detections",
        version=TEST_VERSION,
        recipe=config.detections_recipe().model_dump(mode="json"),
        maker="flows.stages.foreign:TEST",
        inputs={"test": view_input(config, entry.test, "truth", protocols)},
        fixed_inputs={"foreign": foreign.digest},
        options=foreign.model_dump(mode="json"),
        resume_point=last_shard,
    )


def make_features(context: StageContext[FeaturesRecipe, FeaturesInputs, ForeignFeatures]) -> Made:
    """Copy the rows of a view's people; a box may have several, such as a mirrored one."""
    people = context.inputs.people
    boxes = people.view.boxes.filter(people_of(people.view.boxes, context.recipe))
    with _opened(context.options) as reader:
        box, row = _rows_of(reader, boxes["box_id"], people.spec.dataset, context.options.folder)
        array = _copy(context, reader, row)
    of_row = boxes.take(pa.array(box))
    cameras = people.view.images.select(["image_id", "camera_id"])
    camera = pc.index_in(of_row["image_id"], value_set=cameras["image_id"])
    index = pa.table(
        {
            "row": pa.array(np.arange(len(row)), pa.int64()),
            "box_id": of_row["box_id"],
            "image_id": of_row["image_id"],
            "person_id": of_row["person_id"],
            "camera_id": cameras["camera_id"].take(camera),
            "dataset": pa.repeat(pa.scalar(people.spec.dataset), len(row)),
            "split": pa.repeat(pa.scalar(people.spec.split), len(row)),
            "view": pa.repeat(pa.scalar("plain"), len(row)),
        }
    )
    digest = digest_rows(index.drop_columns(["dataset", "split"]))
    return _made(context, index, array, digest, {"rows": len(row), "row_shape": list(context.options.maps)})


def make_test(context: StageContext[DetectionsRecipe, TestInputs, ForeignFeatures]) -> Made:
    """Copy one row per query box of the protocols that are scored, which alone count in the key, and one per
    ground-truth box, but for forgotten people.
    """
    test = context.inputs.test
    view, protocols = test.view, test.spec.protocols
    boxes, queries = view.boxes.filter(pc.invert(view.forgotten)), view.query_boxes_of(protocols)
    named = view.snapshot.table("queries", [*_BOX, "box_id"], pc.field("protocol").isin([*protocols]))
    asked = _boxes_of(queries, [boxes, named], test.spec.dataset)
    ids = pa.chunked_array([asked, *boxes["box_id"].chunks], pa.string())
    with _opened(context.options) as reader:
        box, row = _rows_of(reader, boxes["box_id"], test.spec.dataset, context.options.folder)
        of_box = row[np.unique(box, return_index=True)[1]]
        place = pc.index_in(ids, value_set=boxes["box_id"].combine_chunks()).to_numpy()
        array = _copy(context, reader, of_box[place])
    both = pa.concat_tables([queries.select(_BOX), boxes.select(_BOX)])
    columns: dict[str, Any] = {name: both[name] for name in _BOX} | {
        "row": pa.array(np.arange(len(both)), pa.int64()),
        "role": pa.array([QUERY] * len(queries) + [TRUTH] * len(boxes)).dictionary_encode(),
        "score": pa.nulls(len(both), pa.float32()),
        "box_id": pa.chunked_array([pa.nulls(len(queries), pa.string()), *boxes["box_id"].chunks]),
    }
    table = pa.table([columns[name] for name in ROWS_SCHEMA.names], schema=ROWS_SCHEMA)
    pq.write_table(table, context.work / ROWS)
    counts = {"images": len(view.images), QUERY: len(queries), TRUTH: len(boxes)}
    return _made(context, table, array, digest_rows(table), counts)


FEATURES = Maker(FeaturesRecipe, FeaturesInputs, ForeignFeatures, make_features)
TEST = Maker(DetectionsRecipe, TestInputs, ForeignFeatures, make_test)

AnyContext = StageContext[Any, Any, ForeignFeatures]


def _opened(options: ForeignFeatures) -> FeatureReader:
    """The store, if it is what it was when the run was planned."""
    if foreign_digest(options.folder) != options.digest:
        raise StageError(
            f"{options.folder} has changed since the run was planned; run the same command again"
        )
    from storage.feature_store import open_features

    return open_features(options.folder)


def _rows_of(
    reader: FeatureReader, box_ids: pa.ChunkedArray, dataset: str, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) positions among the boxes and (n,) rows of the store: all rows of each box, in the boxes' order.

    Raises StageError when a box has none.
    """
    index = reader.index
    if "dataset" in index.column_names:
        index = index.filter(pc.equal(index["dataset"].cast(pa.string()), dataset))
    place = pc.index_in(index[BOX_ID].cast(pa.string()), box_ids.combine_chunks())
    position, rows = pc.fill_null(place, -1).to_numpy(), index["row"].to_numpy()
    found = np.flatnonzero(position >= 0)
    order = found[np.lexsort((rows[found], position[found]))]
    missing = np.setdiff1d(np.arange(len(box_ids)), position[order])
    if len(missing):
        shown = ", ".join(repr(each) for each in box_ids.take(pa.array(missing[:SHOWN])).to_pylist())
        more = ", ..." if len(missing) > SHOWN else ""
        raise StageError(
            f"{folder} has no row for {len(missing):,} of {len(box_ids):,} boxes of {dataset}: {shown}{more};"
            " write one for each box of the view, by its box_id in the catalog"
        )
    return position[order], rows[order]


def _copy(context: AnyContext, reader: FeatureReader, rows: np.ndarray) -> str:
    """Copy rows shard by shard, and return the digest of what was copied; shards that exist stay."""
    from storage.feature_store import create_features, finish_features

    shape, dtype = context.options.maps, context.options.dtype
    assert math.prod(shape) == math.prod(reader.shape[1:])
    with create_features(context.work, len(rows), shape, dtype, attributes=context.attributes()) as writer:
        done = set(writer.complete_shards)
        missing = [shard for shard in range(writer.layout.n_shards) if shard not in done]
        left = sum(len(writer.layout.shard_rows(shard)) for shard in missing)
        require_free_space(context.work, features_bytes(left, shape, dtype), what="features")
        for shard in missing:
            span = writer.layout.shard_rows(shard)
            block = reader.rows(rows[span.start : span.stop])
            writer.write(span.start, block.reshape(len(block), *shape))
            done.add(shard)
            context.reached(len(done), writer.layout.n_shards)
    return finish_features(context.work)


def _boxes_of(queries: pa.Table, tables: Sequence[pa.Table], dataset: str) -> pa.Array:
    """The ground-truth box of each query box, as the last of the tables that knows one names it.

    Raises StageError for a query box that is not one.
    """
    named, known = [*_BOX, "box_id"], dict[tuple[Any, ...], str]()
    for table in tables:
        asked = table.filter(pc.is_in(table["image_id"], value_set=queries["image_id"]))
        for *values, box_id in zip(*(asked[name].to_pylist() for name in named), strict=True):
            if box_id is not None:
                known[tuple(values)] = box_id
    found = [known.get(key) for key in zip(*(queries[name].to_pylist() for name in _BOX), strict=True)]
    if lost := found.count(None):
        raise StageError(
            f"{dataset}: {lost:,} of {len(found):,} query boxes are not ground-truth boxes: features from "
            "elsewhere are known by the ids of ground-truth boxes, so these queries have no features"
        )
    return pa.array(found, pa.string())


def _made(context: AnyContext, index: pa.Table, array: str, rows: str, metrics: dict[str, Any]) -> Made:
    from storage.feature_store import write_index
    from storage.feature_store.digests import read_file_digests
    from storage.feature_store.layout import FILES_FILE

    write_index(context.work, index)
    options = context.options
    name = "index" if "view" in index.column_names else "rows"
    return Made(
        digest_parts({"features": array, name: rows}),
        metrics,
        scratch=(FILES_FILE,),
        file_digests=read_file_digests(context.work),
        made_by={"foreign": {"folder": str(options.folder), "row_shape": list(options.row_shape)}},
    )
