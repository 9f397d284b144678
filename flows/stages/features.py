"""`features`: a training view and the shared blocks -> pooled features of every ground-truth box."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.row_digests import digest_rows
from flows.config.devices import device_names
from flows.config.models import Config
from flows.config.sections import ViewRef
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
from flows.stages.earlier import Earlier, contents, earlier_rows, record
from personsearch_core.recipes import FeaturesRecipe, Recipe
from storage.digests import digest_parts
from storage.space import require_free_space
from storage.store import Artifact, Store

if TYPE_CHECKING:
    from flows.stages.extraction import Extraction, Prepared

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
        bytes_needed=partial(bytes_of_people, recipe, people, partial(_bytes_of, config)),
    )


def bytes_of_people(
    recipe: FeaturesRecipe,
    ref: InputRef,
    bytes_of: Callable[[int], int],
    artifacts: Mapping[str, Artifact],
    store: Store,
) -> int | None:
    """What the features of a view's people take: counted in the snapshot, before any detector is trained."""
    snapshot = artifacts.get(ref.stage)
    if snapshot is None or ref.view is None:
        return None
    people = people_of(ref.view.of(store.here(snapshot).path).boxes, recipe)
    return bytes_of(pc.sum(people, min_count=0).as_py())


def _bytes_of(config: Config, people: int) -> int:
    from storage.feature_store import features_bytes
    from storage.feature_store.codecs import stored_row

    recipe = config.features_recipe()
    shape, codec = recipe.roi.row_shape(config.detector.model.backbone), recipe.codec
    row = stored_row(shape, recipe.dtype, codec.values, codec.channels)
    return features_bytes(recipe.rows_per_box * people, *row)


def people_of(boxes: pa.Table, recipe: FeaturesRecipe) -> pa.ChunkedArray:
    """Which boxes have rows."""
    people = pc.invert(boxes["ignore"])
    return pc.and_(people, pc.is_valid(boxes["person_id"])) if recipe.boxes == "identified" else people


FeaturesContext = StageContext[FeaturesRecipe, FeaturesInputs, Options]


def make(context: FeaturesContext) -> Made:
    """Pool shard by shard; shards that exist are complete and are skipped.

    What an earlier artifact has is taken from it.
    """
    from flows.stages.extraction import prepare
    from flows.stages.growing import match_rows, means_of_rows
    from flows.stages.packing import codec_in, find_axes
    from storage.feature_store import finish_features, summarise_features, write_index
    from storage.feature_store.digests import read_file_digests
    from storage.feature_store.layout import FILES_FILE
    from storage.feature_store.taking_over import DamagedRowsError

    people, extraction = context.inputs.people, _extraction(context)
    ready = prepare(extraction)
    plan, images = ready.plan, contents(people.view.images)
    find_axes(context.work, context.recipe, ready, images)
    codec = codec_in(context.work, context.recipe, plan)
    means = means_of_rows(VERSION, context.recipe, ready, context.options.dask, codec)
    match = partial(match_rows, plan, images)
    with earlier_rows(context, people, means, match) as earlier:
        while True:
            try:
                _make_shards(context, extraction, ready, earlier)
                break
            except DamagedRowsError as damage:
                assert earlier is not None
                lost = np.isin(earlier.match, np.asarray(damage.rows))
                earlier = earlier.without(lost, damage)
    index = plan.index_table(dataset=people.spec.dataset, split=people.spec.split)
    write_index(context.work, index)
    array = finish_features(context.work)
    rows = digest_rows(index.drop_columns(["dataset", "split"]))
    metrics = {"rows": len(plan), "row_shape": list(plan.row_shape), "images": len(plan.scenes)}
    metrics["bytes_per_row"] = round(summarise_features(context.work).stored_bytes / max(1, len(plan)))
    taken = 0 if earlier is None else int(np.count_nonzero(earlier.match >= 0))
    how = {} if codec is None else {"codec": codec.digest}
    return Made(
        digest_parts({"features": array, "index": rows, **how}),
        metrics,
        scratch=(FILES_FILE,),
        file_digests=read_file_digests(context.work),
        made_by=record(context, people, means, len(plan), taken, earlier),
    )


def _extraction(context: FeaturesContext) -> Extraction:
    from flows.stages.extraction import Extraction

    people, detector = context.inputs.people, context.inputs.detector
    devices, threads = device_names(context.processors), context.processors.threads
    if threads is None and context.options.dask is None and _workers(context.options, devices) > 1:
        threads = 1  # what Dask gives to each local worker; the number counts in `means_of_rows`
    return Extraction(
        recipe=context.recipe,
        snapshot=str(people.snapshot.path),
        view=people.spec,
        root=str(people.root),
        detector=str(detector.path) if detector else None,
        devices=devices,
        threads=threads,
        target=str(context.work),
        attributes=json.dumps(context.attributes(), sort_keys=True),
    )


def _workers(options: Options, devices: Sequence[str]) -> int:
    """Number of local processes that compute."""
    return options.workers or len(devices)


def _make_shards(
    context: FeaturesContext, extraction: Extraction, ready: Prepared, earlier: Earlier | None
) -> None:
    """Write the shards that are missing. Raises DamagedRowsError when the earlier artifact is damaged."""
    from flows.stages.extraction import extract, extract_on_dask, open_writer
    from flows.stages.growing import take_rows
    from storage.feature_store import features_bytes
    from storage.feature_store.taking_over import adopt_shards

    options, plan = context.options, ready.plan
    workers = _workers(options, extraction.devices)
    in_process = options.dask is None and workers == 1
    with open_writer(extraction, ready) as writer:
        done = set(writer.complete_shards)

        def follow(shards: Generator[int]) -> None:
            # Where the stage is stopped, nothing is written after its lock is gone.
            with contextlib.closing(shards):
                for shard in shards:
                    done.add(shard)
                    context.reached(len(done), plan.n_shards)

        def missing() -> list[int]:
            return [shard for shard in range(plan.n_shards) if shard not in done]

        if earlier is not None:
            follow(adopt_shards(writer, missing(), earlier.match, earlier.source))
        rows_left = sum(len(writer.layout.shard_rows(shard)) for shard in missing())
        bytes_left = features_bytes(rows_left, writer.layout.row_shape, writer.layout.dtype)
        require_free_space(context.work, bytes_left, what="features")
        if earlier is not None:
            follow(take_rows(writer, missing(), ready, context.recipe, earlier, compute=in_process))
    left = missing()
    if in_process:
        follow(extract(extraction, left))
    else:
        follow(extract_on_dask(extraction, left, workers=workers, address=options.dask))


MAKER = Maker(FeaturesRecipe, FeaturesInputs, Options, make)
