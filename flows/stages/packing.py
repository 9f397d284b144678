"""How the rows of `features` are stored: a recipe's codec, and principal axes from a sample of the rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from personsearch_core.pooling.extraction import RowPlan, extract_rows
from personsearch_core.recipes import FeaturesRecipe
from storage import durable
from storage.errors import StorageError
from storage.feature_store.codecs import CODEC_FILE, RowCodec, parse_axes, principal_axes

if TYPE_CHECKING:
    from flows.stages.extraction import Prepared

log = logging.getLogger(__name__)

SAMPLE_ROWS = 512
"""Whole images are sampled until they have this many rows."""


def codec_in(target: Path, recipe: FeaturesRecipe, plan: RowPlan) -> RowCodec | None:
    """The codec of the store in `target`; None where rows are stored as they are, or there are none.

    Raises StorageError if it needs principal axes which `find_axes` has not left there.
    """
    if recipe.codec.is_none or not len(plan):
        return None
    axes = None
    if recipe.codec.channels is not None:
        try:
            axes = parse_axes((target / CODEC_FILE).read_bytes(), str(target / CODEC_FILE))
        except FileNotFoundError as error:
            raise StorageError(f"{target / CODEC_FILE} is missing; rebuild its artifact") from error
    return RowCodec(plan.row_shape, np.dtype(recipe.dtype), recipe.codec.values, axes)


def find_axes(target: Path, recipe: FeaturesRecipe, ready: Prepared, images: Sequence[str]) -> None:
    """Leave the principal axes of a sample of the rows in `target`, unless they are there already.

    images: the content of each scene. The sample is all rows of the images whose SHA-256 come first, until
    there are 512: it depends on which images there are and not on their order, and often survives a few more.
    """
    plan = ready.plan
    if recipe.codec.channels is None or not len(plan):
        return
    try:
        codec_in(target, recipe, plan)
    except StorageError as error:
        log.debug("%s", error)
        rows = extract_rows(ready.detector, recipe, plan, _sample(plan, images))
        axes = principal_axes(rows, recipe.codec.channels)
        durable.make_folder(target)
        durable.write(target / CODEC_FILE, axes.file)


def _sample(plan: RowPlan, images: Sequence[str]) -> np.ndarray:
    counts = np.bincount(plan.scene, minlength=len(images))
    order = np.array(sorted(range(len(images)), key=lambda scene: images[scene]))
    before = np.cumsum(counts[order]) - counts[order]
    return np.flatnonzero(np.isin(plan.scene, order[before < SAMPLE_ROWS]))
