"""What the benchmarks print: each figure as it is found, then all of them beside what is promised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.benchmarks.timing import Measurement
from flows.cli.json_file import write_json
from flows.cli.tables import whole_lines


def report(measurements: Iterable[Measurement], settings: Mapping[str, Any], json_file: Path | None) -> None:
    """Print them; with `json_file`, write them there too, with the settings they were taken at."""
    console = whole_lines()
    table = Table("what", "how", "median", "figure", "promised", "", box=None, pad_edge=False)
    found = []
    with console.status("measuring"):
        for one in measurements:
            found.append(one)
            figure = f"{one.value:.3g} {one.unit}"
            console.print(f"{one.group}: {one.name}: {figure}")
            kept = "" if one.holds is None else "[green]holds[/]" if one.holds else "[red]missed[/]"
            table.add_row(one.group, one.name, f"{1000 * one.seconds:.1f} ms", figure, one.bound, kept)
    console.print(table)
    write_json(json_file, {**settings, "figures": [one.as_json() for one in found]})
