"""`personsearch benchmark reid`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table


def reid(
    rows: int = typer.Option(1024, min=256, help="Rows of the store."),
    batch: int = typer.Option(128, min=8, help="Rows of a batch: a multiple of four."),
    rounds: int = typer.Option(5, min=1, help="Rounds that a median is taken over."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1 ..."),
    folder: Path = typer.Option(Path("var"), help="Where a temporary folder is made: the disk to read from."),
    json_file: Path | None = typer.Option(None, "--json", help="Also write the figures to this file."),
) -> None:
    """Measure a re-ID step from the store against memory, a plain loop, and recomputed features."""
    import torch

    from flows.benchmarks.reid import ReidBenchmark, measure_reid

    if batch % 4 or 2 * batch > rows:
        raise typer.BadParameter(f"{batch} is no multiple of four, or more than half of {rows} rows")
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True)
    table = Table("what", "how", "median", "figure", "promised", "", box=None, pad_edge=False)
    found = []
    with tempfile.TemporaryDirectory(prefix="benchmark-reid-", dir=folder) as temporary, console.status(name):
        for one in measure_reid(Path(temporary), ReidBenchmark(rows, batch, rounds, torch.device(name))):
            found.append(one)
            console.print(f"{one.group}: {one.name}: {one.value:.3g} {one.unit}")
            kept = "" if one.holds is None else "[green]holds[/]" if one.holds else "[red]missed[/]"
            figure = f"{one.value:.3g} {one.unit}"
            table.add_row(one.group, one.name, f"{1000 * one.seconds:.1f} ms", figure, one.bound, kept)
    console.print(table)
    if json_file is not None:
        body = {"rows": rows, "batch": batch, "rounds": rounds, "device": name}
        json_file.write_text(
            json.dumps({**body, "figures": [one.as_json() for one in found]}, indent=1) + "\n"
        )
