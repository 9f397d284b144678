"""`personsearch benchmark`: every measurement beside its baseline, in one run."""

from __future__ import annotations

import typer

from flows.cli.lazy import Lazy, lazy_group

COMMANDS = {
    "start": Lazy(
        "flows.benchmarks.start:start",
        "Measure what commands and small runs cost beside their work, in whole processes.",
    ),
    "store": Lazy(
        "flows.benchmarks.store:store",
        "Measure the feature store against memmap, bare reads and other stores, all in one run.",
    ),
    "extraction": Lazy(
        "flows.benchmarks.extraction:extraction",
        "Measure the extraction of features against decoding and the shared blocks' forward alone.",
    ),
    "speed": Lazy(
        "flows.benchmarks.speed:speed",
        "Time detection and description per person, and the ratio to Disj beside its bound and the paper's.",
    ),
    "reid": Lazy(
        "flows.benchmarks.reid:reid",
        "Measure a re-ID step from the store against memory, a plain loop, and recomputed features.",
    ),
}

app = typer.Typer(cls=lazy_group(COMMANDS), no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Measure speed and memory against baselines that run beside."""
