"""`features`: a training view and the shared blocks -> pooled features of every ground-truth box."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from functools import partial

import pyarrow.compute as pc

from data_catalog.row_digests import digest_rows
from flows.config.models import Config, ViewRef
from flows.stages.base import (
    ArtifactInput,
    InputRef,
    Inputs,
    Made,
    Maker,
    Stage,
    StageContext,
    ViewInput,
    last_shard,
    processors_of,
    view_input,
)
from personsearch_core.recipes import FeaturesRecipe, Recipe
from storage.digests import digest_parts
from storage.store import Artifact

VERSION = 2


class FeaturesInputs(Inputs):
    people: ViewInput
    detector: ArtifactInput | None = None
    """None for crops."""


class Options(Recipe):
    dask: str | None
    """Address of a scheduler."""
    workers: int | None


def stage(config: Config, name: str, view: ViewRef) -> Stage:
    """The stage of one dataset; `name` is of `feature_names`."""
    recipe, people = config.features_recipe(), view_input(config, view, "people")
    inputs = {"people": people}
    if recipe.roi.variant != "disj":
        inputs["detector"] = InputRef("detector")
    return Stage(
        name=f"features{name}",
        kind="features",
        version=VERSION,
        recipe=recipe.model_dump(mode="json"),
        maker="flows.stages.features:MAKER",
        inputs=inputs,
        options=Options(dask=config.run.dask, workers=config.run.workers).model_dump(mode="json"),
        processors=processors_of(config, several=True),
        resume_point=last_shard,
        bytes_needed=partial(_bytes_needed, config, people),
    )


def _bytes_needed(config: Config, ref: InputRef, artifacts: Mapping[str, Artifact]) -> int | None:
    """Rows are counted in the snapshot, so this is known before any detector is trained."""
    from storage.feature_store import features_bytes

    recipe = config.features_recipe()
    snapshot = artifacts.get(ref.stage)
    if snapshot is None or ref.view is None:
        return None
    view = ref.view.of(snapshot.path)
    people = pc.invert(view.boxes["ignore"])
    if recipe.boxes == "identified":
        people = pc.and_(people, pc.is_valid(view.boxes["person_id"]))
    n_rows = recipe.rows_per_box * pc.sum(people, min_count=0).as_py()
    return features_bytes(n_rows, recipe.roi.row_shape(config.detector.model.backbone), recipe.dtype)


def make(context: StageContext[FeaturesRecipe, FeaturesInputs, Options]) -> Made:
    """Pool shard by shard; shards that exist are complete and are not made again."""
    from flows.config.devices import device_names
    from flows.stages.extraction import Extraction, extract, extract_on_dask, open_writer, prepare
    from storage.feature_store import (
        FILES_FILE,
        features_bytes,
        finish_features,
        read_file_digests,
        write_index,
    )
    from storage.space import require_free_space

    options, people, detector = context.options, context.inputs.people, context.inputs.detector
    devices = device_names(context.processors)
    extraction = Extraction(
        recipe=context.recipe,
        snapshot=str(people.snapshot.path),
        view=people.spec,
        root=str(people.root),
        detector=str(detector.path) if detector else None,
        devices=devices,
        threads=context.processors.threads,
        target=str(context.work),
        attributes=json.dumps(context.attributes(), sort_keys=True),
    )
    ready = prepare(extraction)
    plan = ready.plan
    with open_writer(extraction, ready) as writer:
        done = set(writer.complete_shards)
    missing = [shard for shard in range(plan.n_shards) if shard not in done]
    rows_left = sum(len(range(len(plan))[plan.rows_of(shard)]) for shard in missing)
    bytes_left = features_bytes(rows_left, plan.row_shape, context.recipe.dtype)
    require_free_space(context.work, bytes_left, what="features")
    workers = options.workers or len(devices)
    if options.dask is None and workers == 1:
        shards = extract(extraction, missing)
    else:
        shards = extract_on_dask(extraction, missing, workers=workers, address=options.dask)
    with contextlib.closing(shards):  # where the stage is stopped, nothing is written after its lock is gone
        for shard in shards:
            done.add(shard)
            context.reached(len(done), plan.n_shards)
    index = plan.index_table(dataset=people.spec.dataset, split=people.spec.split)
    write_index(context.work, index)
    array = finish_features(context.work)
    rows = digest_rows(index.drop_columns(["dataset", "split"]))
    metrics = {"rows": len(plan), "row_shape": list(plan.row_shape), "images": len(ready.scenes)}
    digest = digest_parts({"features": array, "index": rows})
    return Made(digest, metrics, scratch=(FILES_FILE,), file_digests=read_file_digests(context.work))


MAKER = Maker(FeaturesRecipe, FeaturesInputs, Options, make)
