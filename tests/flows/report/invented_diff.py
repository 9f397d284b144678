"""Two results in an invented store, and the page of their difference."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from flows.compare.attribution import Attribution, Taken, account
from flows.compare.differences import Difference, difference
from flows.compare.factors import Factor
from flows.compare.history import History
from flows.compare.sides import find_side
from flows.errors import Failure
from flows.plan.catalog import StoreSnapshots
from flows.report.diff_page import render_diff
from flows.report.moved_queries import draw_moved
from flows.run.comparing import by_query
from flows.stages import evaluation
from storage.local import LocalStore
from storage.store import Artifact
from tests.flows.report.invented import HOSTILE, ReportStore


@dataclass(frozen=True)
class TwoResults:
    """Evaluations of one model: the later one searches across cameras only, with another minimum score."""

    made: ReportStore
    before: Artifact
    after: Artifact

    @property
    def store(self) -> LocalStore:
        return self.made.store

    def difference(self, moved: int = 3) -> Difference:
        names = (f"evaluation/{each.key}" for each in (self.before, self.after))
        before, after = (History.of(find_side(self.store, name), self.store) for name in names)
        return difference(before, after, self.store, moved)


def two_results(made: ReportStore) -> TwoResults:
    before = made.plan()["evaluation"].artifact
    assert before is not None
    (entry,) = made.config.evaluation
    changed = entry.model_copy(update={"score_threshold": 0.9, "cross_camera": True, "readings": None})
    other = ReportStore(made.config.model_copy(update={"evaluation": (changed,)}), made.store)
    return TwoResults(made, before, other.commit("evaluation", evaluation.make))


def invented_diff(made: ReportStore, folder: Path) -> str:
    """The page, over a copy of the store, with an attribution of which one replay failed."""
    store = LocalStore(Path(shutil.copytree(made.store.root, folder / "store")))
    root = StoreSnapshots(made.store).root(HOSTILE)
    assert root is not None
    results = two_results(ReportStore(made.config, store))
    found = results.difference()
    factors = [Factor("evaluation recipe"), Factor(f"data of {HOSTILE}")]
    old, new = (by_query(store, each, "mAP") for each in (results.before, results.after))
    replayed = {Taken(): old, Taken(factors[:1]): new, Taken(factors[1:]): old, Taken(factors): new}
    accounted = account(HOSTILE, "mAP", factors, replayed, (old, new), is_rebuilt=True)
    assert accounted is not None
    attribution = Attribution(
        [accounted], [(f"B with A's data of {HOSTILE}", Failure("refused", "it failed"))], {}, False
    )
    moved = [draw_moved(test, found.before, found.after, store) for test in found.tests]
    assert moved[0].pictures, moved[0].why_not
    return render_diff(found, attribution, moved)
