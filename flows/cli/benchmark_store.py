"""`personsearch benchmark store`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from flows.benchmarks.store import measure_store
from flows.cli.json_file import Json
from flows.cli.measurements import report


def store(
    rows: int = typer.Option(8192, min=256, help="Records to write and read."),
    record_shape: str = typer.Option("512,24,8", help="Shape of a record, float16: numbers with commas."),
    rounds: int = typer.Option(30, min=1, help="Rounds that a median is taken over."),
    folder: Path = typer.Option(Path("var"), help="Where a temporary folder is made: the disk to measure."),
    json_file: Json = None,
) -> None:
    """Measure the feature store against memmap, bare reads and other stores, all in one run."""
    shape = _parse_shape(record_shape)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-store-", dir=folder) as temporary:
        settings = {"rows": rows, "record_shape": shape, "rounds": rounds}
        report(measure_store(Path(temporary), rows, shape, rounds), settings, json_file)


def _parse_shape(text: str) -> list[int]:
    try:
        shape = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a shape: give numbers with commas, such as 512,24,8"
        ) from error
    if min(shape) < 1:
        raise typer.BadParameter(f"{text!r} is not a shape: every number must be at least 1")
    return shape
