"""`personsearch benchmark store`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from flows.benchmarks.store import measure_store


def store(
    rows: int = typer.Option(8192, min=256, help="Records to write and read."),
    record_shape: str = typer.Option("512,24,8", help="Shape of a record, float16: numbers with commas."),
    rounds: int = typer.Option(30, min=1, help="Rounds that a median is taken over."),
    folder: Path = typer.Option(Path("var"), help="Where a temporary folder is made: the disk to measure."),
    json_file: Path | None = typer.Option(None, "--json", help="Also write the figures to this file."),
) -> None:
    """Measure the feature store against memmap, bare reads and other stores, all in one run."""
    shape = _parse_shape(record_shape)
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True)
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-store-", dir=folder) as temporary,
        console.status("writing"),
    ):
        for measurement in measure_store(Path(temporary), rows, shape, rounds):
            found.append(measurement)
            console.print(
                f"{measurement.group}: {measurement.name}: {measurement.value:.3g} {measurement.unit}"
            )
    table = Table("what", "how", "median", "figure", "promised", "", box=None, pad_edge=False)
    for one in found:
        kept = "" if one.holds is None else "[green]holds[/]" if one.holds else "[red]missed[/]"
        figure = f"{one.value:.3g} {one.unit}"
        table.add_row(one.group, one.name, f"{1000 * one.seconds:.1f} ms", figure, one.bound, kept)
    console.print(table)
    if json_file:
        body = {
            "rows": rows,
            "record_shape": shape,
            "rounds": rounds,
            "figures": [one.as_json() for one in found],
        }
        json_file.write_text(json.dumps(body, indent=1) + "\n")


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
