"""`personsearch benchmark reid`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from flows.cli.json_file import Json
from flows.cli.measurements import report
from flows.config.devices import torch_device


def reid(
    rows: int = typer.Option(1024, min=256, help="Rows of the store."),
    batch: int = typer.Option(128, min=8, help="Rows of a batch: a multiple of four."),
    rounds: int = typer.Option(5, min=1, help="Rounds that a median is taken over."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1 ..."),
    folder: Path = typer.Option(Path("var"), help="Where a temporary folder is made: the disk to read from."),
    json_file: Json = None,
) -> None:
    """Measure a re-ID step from the store against memory, a plain loop, and recomputed features."""
    from flows.benchmarks.reid import ReidBenchmark, measure_reid

    if batch % 4 or 2 * batch > rows:
        raise typer.BadParameter(f"{batch} is no multiple of four, or more than half of {rows} rows")
    on = torch_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    size = ReidBenchmark(rows, batch, rounds, on)
    with tempfile.TemporaryDirectory(prefix="benchmark-reid-", dir=folder) as temporary:
        settings = {"rows": rows, "batch": batch, "rounds": rounds, "device": str(on)}
        report(measure_reid(Path(temporary), size), settings, json_file)
