"""`features`: a training view and the shared blocks -> pooled features of every ground-truth box."""

from __future__ import annotations

from pathlib import Path

from data_catalog.views import digest_rows
from flows.config import Config
from flows.stages.base import InputRef, Made, Stage, StageContext
from flows.stages.names import ingest_name
from flows.stages.resuming import last_shard
from flows.views import ViewSpec, read_scenes
from storage.digests import digest_parts

VERSION = 1


def stage(config: Config) -> Stage:
    recipe = config.features_recipe()
    train = config.reid_section.train
    inputs = {
        "people": InputRef(
            ingest_name(train.dataset), ViewSpec(train.dataset, train.split, "people", train.min_height)
        )
    }
    if recipe.roi.variant != "disj":
        inputs["detector"] = InputRef("detector")
    return Stage(
        name="features",
        kind="features",
        version=VERSION,
        recipe=recipe.model_dump(mode="json"),
        maker="flows.stages.features:make",
        inputs=inputs,
        options={
            "root": str(config.datasets[train.dataset].root),
            "device": config.run.device,
            "threads": config.run.threads,
        },
        resume_point=last_shard,
    )


def make(context: StageContext) -> Made:
    """Pool shard by shard; shards that exist are complete and are not made again."""
    from flows.stages.models import load_stage_detector, stage_device
    from personsearch_core.pooling import extract_shards, feature_rows
    from personsearch_core.recipes import FeaturesRecipe
    from storage.feature_store import create_features, finish_features, write_index

    recipe = FeaturesRecipe.model_validate(context.recipe)
    spec = context.views["people"]
    scenes = read_scenes(context.artifacts["people"].path, spec, Path(context.options["root"]))
    device = stage_device(context.options)
    detector = load_stage_detector(context, device)
    plan = feature_rows(recipe, scenes, detector)
    index = plan.index_table(dataset=spec.dataset, split=spec.split)
    with create_features(context.work, len(plan), plan.row_shape, recipe.dtype) as writer:
        done = set(writer.complete_shards)
        missing = [shard for shard in range(plan.n_shards) if shard not in done]
        for shard, block in extract_shards(detector, recipe, scenes, plan, missing):
            writer.write(shard * plan.rows_per_shard, block)
            done.add(shard)
            context.progress(len(done), plan.n_shards)
    write_index(context.work, index)
    array = finish_features(context.work)
    rows = digest_rows(index.drop_columns(["dataset", "split"]))
    metrics = {"rows": len(plan), "row_shape": list(plan.row_shape), "images": len(scenes)}
    return Made(digest_parts({"features": array, "index": rows}), metrics)
