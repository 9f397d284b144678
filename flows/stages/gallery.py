"""`gallery`: the branch on a test view's cached features -> embeddings of all its rows. Opens no image."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow.parquet as pq

from data_catalog.row_digests import digest_rows
from flows.config.devices import stage_device
from flows.config.models import Config
from flows.stages.base import (
    ArtifactInput,
    InputRef,
    Inputs,
    Made,
    Maker,
    Nothing,
    Stage,
    StageContext,
    processors_of,
)
from flows.stages.detections import ROWS
from flows.stages.detector import TRAINED_BRANCH, UNTRAINED_BRANCH
from personsearch_core.recipes import GalleryRecipe
from storage.digests import digest_parts

VERSION = 1
EMBEDDINGS = "embeddings.npy"
UNTRAINED_EMBEDDINGS = "embeddings_untrained.npy"


class GalleryInputs(Inputs):
    detections: ArtifactInput
    reid: ArtifactInput
    """What holds the branch: a re-ID stage, or a detector that was trained jointly."""


def stage(config: Config, suffix: str) -> Stage:
    branch = (config.detector.joint or config.reid_section).branch
    return Stage(
        name=f"gallery{suffix}",
        kind="gallery",
        version=VERSION,
        recipe=config.gallery.model_dump(mode="json"),
        maker="flows.stages.gallery:MAKER",
        inputs={"detections": InputRef(f"detections{suffix}"), "reid": InputRef(config.branch_stage)},
        # The digest of a branch is of its weights, which are the same with and without.
        fixed_inputs={} if branch.normalise else {"normalise": "false"},
        processors=processors_of(config),
    )


def make(context: StageContext[GalleryRecipe, GalleryInputs, Nothing]) -> Made:
    """Embed every row of the detections' store with the trained branch and, if asked, the untrained one."""
    from personsearch_core.embedding import embed_rows
    from personsearch_core.models.weights import load_branch
    from storage.feature_store import open_features

    recipe = context.recipe
    device = stage_device(context.processors)
    source = context.inputs.detections.path
    rows = pq.read_table(source / ROWS)
    pq.write_table(rows, context.work / ROWS)
    digests = {"rows": digest_rows(rows)}
    branches = context.inputs.reid.path
    wanted = {EMBEDDINGS: TRAINED_BRANCH}
    if (
        recipe.untrained and (branches / UNTRAINED_BRANCH).is_file()
    ):  # an imported model has only the trained one
        wanted[UNTRAINED_EMBEDDINGS] = UNTRAINED_BRANCH
    with open_features(source) as reader:
        for number, (name, weights) in enumerate(wanted.items()):
            branch = load_branch(branches / weights).to(device).eval()

            def progress(done: int, total: int, start: int = number) -> None:
                context.reached(start * total + done, len(wanted) * total)

            embeddings = embed_rows(branch, reader, recipe, progress=progress)
            np.save(context.work / name, embeddings)
            digests[name] = hashlib.sha256(np.ascontiguousarray(embeddings).tobytes()).hexdigest()
    return Made(digest_parts(digests), {"rows": len(rows)})


MAKER = Maker(GalleryRecipe, GalleryInputs, Nothing, make)
