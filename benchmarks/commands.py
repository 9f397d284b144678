"""`personsearch benchmark`: every measurement with its baseline, in one run."""

from __future__ import annotations

import typer

from flows.cli.lazy import Lazy, lazy_group

COMMANDS = {
    "start": Lazy(
        "benchmarks.start:start",
        "Measure the overhead of commands and small runs, as whole processes.",
    ),
    "store": Lazy(
        "benchmarks.store:store",
        "Measure the feature store against memmap, bare reads and other stores.",
    ),
    "many-artifacts": Lazy(
        "benchmarks.many_artifacts:many_artifacts",
        "Measure listings of a store of many artifacts, with its index and without.",
    ),
    "coordination": Lazy(
        "benchmarks.coordination:coordination",
        "Measure what it costs many machines to share a store on object storage.",
    ),
    "extraction": Lazy(
        "benchmarks.extraction:extraction",
        "Measure feature extraction against the forward pass of the shared blocks, and against the disk.",
    ),
    "growth": Lazy(
        "benchmarks.growth:growth",
        "Measure features and detections of a dataset that has grown by 1 %, against a full build.",
    ),
    "speed": Lazy(
        "benchmarks.speed:speed",
        "Time detection and embedding per person, with the ratio to Disj, its bound and the paper's.",
    ),
    "compiled": Lazy(
        "benchmarks.compiled:compiled",
        "Time a detector's training step and inference, compiled as one graph each, against eager.",
    ),
    "search": Lazy(
        "benchmarks.search:search",
        "Measure search against one product over all embeddings, and indexing against the model alone.",
    ),
    "serve": Lazy(
        "benchmarks.serving:serve",
        "Measure the search page under load and against uploads that it must refuse.",
    ),
    "soak": Lazy(
        "benchmarks.soak:soak",
        "Run a small project night after night: growth, kills, a full disk, collections, searches.",
    ),
    "remote": Lazy(
        "benchmarks.remote_training:remote",
        "Measure training from object storage through a cache of shards, against the local disk.",
    ),
    "object-clients": Lazy(
        "benchmarks.object_clients:object_clients",
        "Measure the S3 client of the stores, s3fs, against obstore.",
    ),
    "reid": Lazy(
        "benchmarks.reid:reid",
        "Measure a re-ID step from the store against memory, a plain loop and recomputed features.",
    ),
}

app = typer.Typer(cls=lazy_group(COMMANDS), no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Measure speed and memory against baselines in the same run."""
