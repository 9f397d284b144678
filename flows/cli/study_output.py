"""How `study` and `sweep` show their tables: live on a terminal, a line per stage elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from flows.cli.printing import plain_table, whole_lines
from flows.console import is_terminal, terminal, told
from flows.errors import Failure, StageFailed
from flows.run.stopping import stopped
from flows.studies.cells import FilledTable
from flows.studies.output import heading, holes_of, legend, text_rows
from flows.studies.running import StudyResult, StudyStanding
from flows.wording import about, counted
from storage import durable


class Watching:
    """Shows how a study stands; call it with each `StudyStanding`."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._filled: dict[tuple[str, str, str], str] = {}

    def __call__(self, standing: StudyStanding) -> None:
        left = standing.seconds_left
        time_left = "" if left is None else f", about {about(left)} left"
        line = f"{standing.done} of {standing.total}{time_left}: {standing.text}"
        if self._live is not None:
            tables = [rich_table(filled) for filled in standing.tables]
            self._live.update(Group(*tables, Text(line)))
            return
        told.info("%s", line)
        for text in self._new_cells(standing.tables):
            told.info("  %s", text)

    def _new_cells(self, tables: Sequence[FilledTable]) -> Iterator[str]:
        """The rows that have gained values since the last call."""
        for filled in tables:
            for row, texts in zip(filled.rows, text_rows(filled), strict=False):
                gained = []
                for (name, column), text in zip(filled.table.columns.items(), texts[1:], strict=True):
                    cell = (filled.table.name, row.name, name)
                    if row.cells[name].value is not None and self._filled.get(cell) != text:
                        self._filled[cell] = text
                        gained.append(f"{column.title} {text}")
                if gained:
                    yield f"{filled.table.title}: {texts[0]}: {', '.join(gained)}"


@contextmanager
def watching() -> Iterator[Watching]:
    """A watcher of a study that runs in the block."""
    if not is_terminal():
        yield Watching(None)
        return
    with Live(console=terminal(), refresh_per_second=4, transient=True) as live:
        yield Watching(live)


def rich_table(filled: FilledTable) -> Table:
    """A table for the terminal; titles wrap, and no column is cut."""
    columns = [Column(heading(column), justify="right") for column in filled.table.columns.values()]
    table = plain_table("", *columns, title=filled.table.title)
    for line in text_rows(filled):
        table.add_row(*map(Text, line))
    return table


def write_page(result: StudyResult) -> Path:
    """Write the page beside the tables, and the digests of all."""
    from flows.report.study_page import render_study  # loads matplotlib
    from personsearch_core.checksums import CHECKSUMS, write_checksums

    path = result.folder / "report.html"
    durable.write(path, render_study(result), lasting=False)
    names = [file.name for file in result.folder.iterdir() if file.is_file()]
    # Without what a killed process left.
    write_checksums(result.folder, [name for name in names if not name.startswith((".", CHECKSUMS))])
    return path


def print_result(result: StudyResult, report: Path) -> None:
    """The tables, what is missing and why, and where the files are."""
    for filled in result.tables:
        whole_lines().print(rich_table(filled))
        for text in (filled.table.caption, legend(filled)):
            if text:
                typer.echo(text)
        typer.echo()
    for text in holes_of(result.tables):
        typer.echo(f"missing: {text}")
    for name, why in result.failures():
        typer.echo(f"failed: {name}: {why}")
    made = ", ".join(f"{count} {kind}" for kind, count in sorted(result.made.items())) or "nothing"
    typer.echo(
        f"{counted(len(result.members), 'member')}; built {made} in {result.wall_seconds:.1f} s; "
        f"tables: {result.folder}"
    )
    typer.echo(f"report: {report}")


def raise_failure(result: StudyResult) -> None:
    """Raise Interrupted if the study was stopped, StageFailed if members failed."""
    failures = [(each.member.name, each.failure) for each in result.members if each.failure is not None]
    raise_first(failures, f"of {len(result.members)} members", is_stopped=result.stopped)


def raise_first(failures: Sequence[tuple[str, Failure]], of_what: str, *, is_stopped: bool) -> None:
    """Raise Interrupted if the work was stopped, StageFailed with the first failure if there is one."""
    if is_stopped:
        raise stopped()
    if failures:
        name, first = failures[0]
        raise StageFailed(first.of(f"{len(failures)} {of_what} failed; {name}"))
