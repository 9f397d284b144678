"""The page of a difference: results, what explains them, the queries that moved, data, recipes, code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flows.compare.attribution import Account, Attribution
from flows.compare.data import Counts
from flows.compare.differences import Difference
from flows.compare.results import METRICS
from flows.pages.page import render_page
from flows.report.content import Figure
from flows.report.moved_queries import MovedOfTest
from flows.report.page import FOLDER
from flows.report.plots import interval_plot
from flows.run.comparing import Comparison

METRIC_TITLES = {"mAP": "mAP", "rank1": "rank-1"}
_LONGEST_LABEL = 22


@dataclass(frozen=True)
class DataRow:
    """A row of the table of data: images, boxes, ... of one dataset."""

    dataset: str
    sort: str
    counts: Counts


def render_diff(difference: Difference, attribution: Attribution | None, moved: Sequence[MovedOfTest]) -> str:
    """One self-contained HTML file."""
    before, after = difference.before.side, difference.after.side
    accounts = [] if attribution is None else attribution.accounts
    return render_page(
        FOLDER,
        "diff.html.j2",
        title=f"{before.given} → {after.given}",
        lead=f"What differs between A, {before.said}, and B, {after.said}, and how the results moved.",
        difference=difference,
        metrics=[(name, METRIC_TITLES[name]) for name in METRICS],
        accounts=accounts,
        failures=[] if attribution is None else [f"{name}: {why}" for name, why in attribution.failures],
        figures=list(_figures(accounts)),
        moved=moved,
        data=[
            DataRow(each.dataset, sort, counts)
            for each in difference.data
            for sort, counts in each.counts.items()
            if counts.differs
        ],
        notes=[f"{each.dataset}: {each.note}." for each in difference.data if each.note],
        lists=_lists(difference),
        interval=interval,
        titles=METRIC_TITLES,
    )


def interval(compared: Comparison | None) -> str:
    """A difference in percentage points with its 95 % interval."""
    if compared is None:
        return "–"
    return f"{compared.difference:+.1f} ({compared.low:+.1f} to {compared.high:+.1f})"


def _lists(difference: Difference) -> list[tuple[str, str, Sequence[object]]]:
    """Id, title and rows of each list of fields."""
    return [
        ("recipes", "Recipes", difference.recipes),
        ("seeds", "Seeds", difference.seeds),
        ("code", "Code", difference.code),
        ("machine", "Machine", difference.machine),
    ]


def _figures(accounts: Sequence[Account]) -> Iterator[Figure]:
    for account in accounts:
        rows = [
            (_short(share.title), share.both.difference, share.both.low, share.both.high)
            for share in account.shares
            if share.both is not None
        ]
        if rows:
            total = account.total
            rows.append(("all of it", total.difference, total.low, total.high))
            metric = METRIC_TITLES[account.metric]
            plot = interval_plot(rows, f"{metric}, percentage points")
            yield Figure(
                f"{metric} on {account.dataset}", plot, "With 95 % intervals over resampled queries."
            )


def _short(title: str) -> str:
    return title if len(title) <= _LONGEST_LABEL else f"{title[: _LONGEST_LABEL - 1]}…"
