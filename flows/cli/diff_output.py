"""What `personsearch diff` prints."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from rich.table import Column, Table
from rich.text import Text

from flows.cli.printing import plain_table, whole_lines
from flows.compare.attribution import Account, Attribution
from flows.compare.data import Counts, DataDifference
from flows.compare.differences import Difference
from flows.compare.results import METRICS, TestDifference
from flows.wording import counted


def print_difference(difference: Difference) -> None:
    """Both sides, the results, and everything that differs."""
    for line in _lines(difference):
        typer.echo(line)


def print_attribution(attribution: Attribution) -> None:
    """A table per test and metric."""
    for account in attribution.accounts:
        whole_lines().print(_table(account))
    for name, failure in attribution.failures:
        typer.echo(f"not replayed: {name}: {failure}")
    typer.echo(
        "explains: the mean of the next two columns. Intervals are over resampled queries, not over seeds."
    )


def _lines(difference: Difference) -> Iterator[str]:
    for name, history in (("A", difference.before), ("B", difference.after)):
        yield f"{name}: {history.side.said}"
        if history.gone:
            yield f"   no longer in the store: {', '.join(history.gone)}"
    if difference.is_same:
        yield "A and B are the same evaluations: nothing differs"
    for test in difference.tests:
        yield from _results(test)
    yield from _section("data", (line for each in difference.data for line in _data(each)))
    for title, fields in difference.fields.items():
        yield from _section(title, (f"{each} [{', '.join(each.stages)}]" for each in fields))


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    found = list(lines)
    yield f"{title}:" if found else f"{title}: the same"
    for line in found:
        yield f"  {line}"


def _results(test: TestDifference) -> Iterator[str]:
    yield f"results on {test.dataset}:"
    for name, title in METRICS.items():
        one, other = (100 * value for value in test.headline[name])
        compared = test.compared[name]
        said = "no query in common" if compared is None else f"paired: {compared.points} points"
        yield f"  {title}: {one:.1f} -> {other:.1f} %; {said}"
    if test.compared["mAP"] is not None:
        queries = test.compared["mAP"].queries
        yield f"  {test.n_moved:,} of {counted(queries, 'common query', 'common queries')} moved"
    if test.only_before or test.only_after:
        yield f"  {test.only_before:,} queries are of A alone, {test.only_after:,} of B alone"
    for query in test.moved:
        yield f"  query {query.query_id}: AP {100 * query.before:.1f} -> {100 * query.after:.1f} %"


def _data(each: DataDifference) -> Iterator[str]:
    if each.note:
        yield f"{each.dataset}: {each.note}"
    for sort, counts in each.counts.items():
        if counts.differs:
            yield f"{each.dataset}: {sort} {counts.before:,} -> {counts.after:,}: {_changes(counts)}"


def _changes(counts: Counts) -> str:
    said = []
    for word in ("added", "removed", "changed"):
        number, names = getattr(counts, word), getattr(counts, f"{word}_examples")
        if number:
            more = ", ..." if number > len(names) else ""
            said.append(f"{number:,} {word} ({', '.join(names)}{more})")
    return "; ".join(said)


def _table(account: Account) -> Table:
    columns = [Column(title, justify="right") for title in ("explains, points", "A with it", "B without it")]
    table = plain_table("", *columns, title=f"{METRICS[account.metric]} on {account.dataset}")
    for share in account.shares:
        cells = (share.both, share.alone, share.last)
        table.add_row(Text(share.title), *("?" if each is None else each.points for each in cells))
    if account.rebuilt is not None:
        table.add_row("building A and B again", account.rebuilt.points)
    left = account.left_over
    table.add_row("factors together", "?" if left is None else f"{left:+z.1f}")
    table.add_row("all of it", account.total.points)
    return table
