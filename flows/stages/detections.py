"""`detections`: a test view and the detector -> detections, and pooled features of them, queries and truth.

Rows of the feature store are, image by image: kept detections, query boxes, ground-truth boxes;
`rows.parquet` says which is which.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from data_catalog.row_digests import digest_rows
from flows.config.devices import stage_device
from flows.config.models import Config
from flows.config.sections import EvaluationSection
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
from flows.stages.detected_blocks import DETECTION, QUERY, TRUTH, ImageBlock, TestImages, blocks_of, images_of
from flows.stages.detected_rows import images_on, join, match_images, write_joined
from flows.stages.earlier import Means, earlier_rows, means_of, record
from personsearch_core.recipes import DetectionsRecipe
from storage.digests import digest_parts

if TYPE_CHECKING:
    from personsearch_core.models.detector import Detector

VERSION = 3
ROWS = "rows.parquet"
_ROLES = (DETECTION, QUERY, TRUTH)


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
    """Detect block by block of images, then join the blocks into one feature store.

    Images that an earlier artifact has, with the same query and ground-truth boxes, are taken from it.
    """
    from personsearch_core.models.weights import load_detector
    from storage.feature_store import write_index
    from storage.feature_store.digests import read_file_digests
    from storage.feature_store.layout import FILES_FILE
    from storage.feature_store.taking_over import DamagedRowsError

    recipe, test = context.recipe, context.inputs.test
    wanted = images_of(test)
    device = stage_device(context.processors)
    detector = load_detector(context.inputs.detector.path).to(device).eval()
    means = _means(recipe, detector)
    folder = context.work / "blocks"
    folder.mkdir(exist_ok=True)
    with earlier_rows(context, test, means, partial(match_images, wanted)) as earlier:
        while True:
            try:
                missing = (
                    range(len(wanted)) if earlier is None else np.flatnonzero(earlier.match < 0).tolist()
                )
                blocks = _detect(context, detector, wanted, missing, folder)
                joined = join(wanted, blocks, earlier)
                array = write_joined(
                    context.work,
                    joined,
                    blocks,
                    earlier,
                    row_shape=recipe.roi.row_shape(detector.model.backbone),
                    dtype=recipe.dtype,
                    compression=recipe.compression,
                    attributes=context.attributes(),
                )
                break
            except DamagedRowsError as damage:
                assert earlier is not None
                earlier = earlier.without(images_on(wanted, earlier, damage.rows), damage)
    rows = joined.table
    write_index(context.work, rows)
    pq.write_table(rows, context.work / ROWS)
    shutil.rmtree(folder)
    counts = {role: int(np.sum(rows["role"].to_numpy(zero_copy_only=False) == role)) for role in _ROLES}
    return Made(
        digest_parts({"features": array, "rows": digest_rows(rows)}),
        {"images": len(wanted), **counts},
        scratch=(FILES_FILE,),
        file_digests=read_file_digests(context.work),
        made_by=record(context, test, means, len(rows), int(np.count_nonzero(joined.taken >= 0)), earlier),
    )


MAKER = Maker(DetectionsRecipe, DetectionsInputs, Nothing, make)


def _means(recipe: DetectionsRecipe, detector: Detector) -> Means:
    from personsearch_core.models.compute import model_device, neighbours_count
    from personsearch_core.models.weights import weights_digest

    device = model_device(detector)
    fields = recipe.model_dump(mode="json", exclude={"compression"})
    refusal = neighbours_count(recipe.compute, device)
    return means_of(VERSION, fields, weights_digest(detector), device, refusal)


def _detect(
    context: StageContext[DetectionsRecipe, DetectionsInputs, Nothing],
    detector: Detector,
    wanted: TestImages,
    numbers: Sequence[int],
    folder: Path,
) -> list[ImageBlock]:
    """Detect in the images of these numbers, as far as their blocks are not done."""
    from personsearch_core.pooling.detections import detect_scenes

    blocks = blocks_of(wanted, numbers, folder)
    for number, block in enumerate(blocks):
        if not block.is_done():
            scenes = [wanted.scenes[each] for each in block.images]
            extra = [wanted.extra(each) for each in block.images]
            block.write(wanted, detect_scenes(detector, context.recipe, scenes, extra))
        context.reached(number + 1, len(blocks))
    return blocks
