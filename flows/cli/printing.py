"""What the commands print."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from flows.run.records import where_time_went
from storage.space import in_units

if TYPE_CHECKING:
    from data_catalog.catalog import Catalog
    from data_catalog.snapshot import Snapshot
    from flows.run.planning import Outcome

_RESULTS = {
    "detection_ap50": "detection AP50",
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "mAP_untrained": "mAP before training",
}
_STYLES = {"cached": "green", "made": "cyan", "runs": "yellow", "resumes": "magenta", "failed": "red"}


def print_plan(outcome: Outcome) -> None:
    table = plain_table("stage", "state", "why")
    for stage in outcome.stages:
        taken = stage["bytes_needed"]
        why = stage["reason"] if taken is None else f"{stage['reason']}; will take {in_units(taken)}"
        table.add_row(stage["stage"], _state(stage), Text(why))
    whole_lines().print(table)


def print_run(outcome: Outcome) -> None:
    table = plain_table("stage", "state", "seconds", Column("where", overflow="fold"))
    for stage in outcome.stages:
        seconds = "" if stage["seconds"] is None else f"{stage['seconds']:.1f}"
        table.add_row(stage["stage"], _state(stage), seconds, Text(stage["path"] or ""))
    whole_lines().print(table)
    found = {name: value for name, value in outcome.results.items() if value is not None}
    if found:
        results = plain_table(*(_RESULTS.get(name, name) for name in found))
        results.add_row(*(f"{100 * value:.1f} %" for value in found.values()))
        whole_lines().print(results)
    if outcome.report:
        typer.echo(f"report: {outcome.report}")
    typer.echo(where_time_went(outcome.stages, outcome.wall_seconds))


def plain_table(*columns: Column | str, title: str | None = None) -> Table:
    """An empty table without lines, for `whole_lines`."""
    return Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)


def whole_lines() -> Console:
    """A console for tables: paths wrap on a terminal, and stay on one line in a file or a pipe."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else 1000)


def padded(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a plain table with two spaces between columns; rich takes seconds for thousands of rows."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    line = "  ".join(f"%-{width}s" for width in widths)  # a million lines in a second
    return "\n".join((line % cells).rstrip() for cells in lines)


def print_counts(counts: Mapping[str, int]) -> None:
    """Print a row for the whole root and one per split, from counts by name (`boxes`, `train.boxes`)."""
    from data_catalog.counts import by_split  # loads pyarrow

    print_table(by_split(counts))


def print_table(table: Mapping[str, Mapping[str, int]]) -> None:
    """Print one row per key."""
    from data_catalog.counts import COUNTED

    typer.echo(f"{'':12}" + "".join(f"{name.replace('_', ' '):>15}" for name in COUNTED))
    for row, numbers in table.items():
        typer.echo(f"{row:12}" + "".join(f"{numbers[name]:>15,}" for name in COUNTED))


def _state(stage: dict[str, object]) -> str:
    state = str(stage["state"])
    return f"[{_STYLES.get(state, 'white')}]{'built' if state == 'made' else state}[/]"


def print_snapshot(catalog: Catalog, name: str) -> Snapshot:
    """The snapshot of the dataset's last ingest; prints its path."""
    from data_catalog.rule_notes import rule_notes

    snapshot = catalog[name].snapshot
    typer.echo(f"{name}: snapshot {snapshot.path}")
    for note in rule_notes(snapshot):
        typer.echo(f"{note.level}: {note.message}")
    return snapshot
