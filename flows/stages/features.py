"""`features`: a training view and the shared blocks -> pooled features of every ground-truth box."""

from __future__ import annotations

from data_catalog.views import digest_rows
from flows.config import Config
from flows.stages.base import InputRef, Made, Stage, StageContext
from flows.stages.names import ingest_name
from flows.stages.resuming import last_shard
from flows.views import ViewSpec
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
            "dask": config.run.dask,
            "workers": config.run.workers,
        },
        resume_point=last_shard,
    )


def make(context: StageContext) -> Made:
    """Pool shard by shard; shards that exist are complete and are not made again."""
    from flows.stages.extraction import Extraction, extract, extract_on_dask, prepare, recipe_text
    from storage.feature_store import create_features, finish_features, write_index

    options, spec = context.options, context.views["people"]
    detector = context.artifacts.get("detector")
    extraction = Extraction(
        recipe=recipe_text(context.recipe),
        snapshot=str(context.artifacts["people"].path),
        view=spec,
        root=options["root"],
        detector=str(detector.path) if detector else None,
        device=options["device"],
        threads=options["threads"],
        target=str(context.work),
    )
    ready = prepare(extraction)
    plan = ready.plan
    with create_features(context.work, len(plan), plan.row_shape, ready.recipe.dtype) as writer:
        done = set(writer.complete_shards)
    missing = [shard for shard in range(plan.n_shards) if shard not in done]
    if options["dask"] is None and options["workers"] in (None, 1):
        shards = extract(extraction, missing)
    else:
        shards = extract_on_dask(extraction, missing, workers=options["workers"], address=options["dask"])
    for shard in shards:
        done.add(shard)
        context.progress(len(done), plan.n_shards)
    index = plan.index_table(dataset=spec.dataset, split=spec.split)
    write_index(context.work, index)
    array = finish_features(context.work)
    rows = digest_rows(index.drop_columns(["dataset", "split"]))
    metrics = {"rows": len(plan), "row_shape": list(plan.row_shape), "images": len(ready.scenes)}
    return Made(digest_parts({"features": array, "index": rows}), metrics)
