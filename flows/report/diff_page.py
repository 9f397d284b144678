"""The page of a difference: results, what explains them, the queries that moved, data, recipes, code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.compare.attribution import Account, Attribution
from flows.compare.differences import Difference
from flows.compare.results import METRICS
from flows.pages.page import render_page
from flows.report.content import Figure
from flows.report.moved_queries import MovedOfTest
from flows.report.page import FOLDER
from flows.report.plots import interval_plot, shortened


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
        accounts=accounts,
        failures=[] if attribution is None else [f"{name}: {why}" for name, why in attribution.failures],
        figures=list(_figures(accounts)),
        moved=moved,
        data=[
            (each.dataset, sort, counts)
            for each in difference.data
            for sort, counts in each.counts.items()
            if counts.differs
        ],
        notes=[f"{each.dataset}: {each.note}." for each in difference.data if each.note],
        metrics=METRICS,
    )


def _figures(accounts: Sequence[Account]) -> Iterator[Figure]:
    for account in accounts:
        rows = [
            (shortened(share.title), share.both.difference, share.both.low, share.both.high)
            for share in account.shares
            if share.both is not None
        ]
        if rows:
            total = account.total
            rows.append(("all of it", total.difference, total.low, total.high))
            metric = METRICS[account.metric]
            plot = interval_plot(rows, f"{metric}, percentage points")
            yield Figure(
                f"{metric} on {account.dataset}", plot, "With 95 % intervals over resampled queries."
            )
