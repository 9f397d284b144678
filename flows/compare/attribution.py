"""How much each difference explains: results between A and B, replayed from caches factor by factor.

Each factor is taken from B alone (A with it), and left as in A alone (B without it). What it explains is the
mean of both: with two factors that is its Shapley value, and it treats no order of factors as the right one.
What the factors do not add up to is left over: it is due to factors that act together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.compare.factors import GRAINS, Factor, RunSettings, factors_between, mixed
from flows.compare.history import History
from flows.compare.replay import UNTIL, Replay
from flows.compare.results import METRICS, comparison_data
from flows.errors import ConfigError, Failure, StageError
from flows.run.comparing import Comparison, Metric, by_query, compare_values
from flows.studies.cost import Estimator
from flows.studies.members import Member, Study
from flows.studies.nodes import Nodes
from flows.studies.planning import StudyPlan, plan_study
from flows.studies.schedule import ONE_SLOT, Slots, StageEvent, ignore, run_members
from flows.studies.walks import MemberOutcome
from storage.store import Artifact, Store

Values = Mapping[str, float]
Taken = frozenset[Factor]


@dataclass(frozen=True)
class Share:
    """What one factor explains of a metric, in percentage points; None where a replay failed.

    `alone`: A with this factor of B, against A. `last`: B against B with this factor of A. `both`: the mean.
    """

    title: str
    alone: Comparison | None
    last: Comparison | None
    both: Comparison | None

    def as_data(self) -> dict[str, Any]:
        parts = {name: comparison_data(getattr(self, name)) for name in ("alone", "last", "both")}
        return {"factor": self.title, **parts}


@dataclass(frozen=True)
class Account:
    """The shares of a metric's difference in one test, over the queries that all replays have.

    `rebuilt` is what building A and B again changes by itself (code, machine); None where they are in the
    store as they are. `left_over` is what remains of the total; None if a share is missing.
    """

    dataset: str
    metric: Metric
    total: Comparison
    shares: Sequence[Share]
    rebuilt: Comparison | None

    @property
    def left_over(self) -> float | None:
        parts = [share.both for share in self.shares]
        if any(part is None for part in parts):
            return None
        explained = sum(part.difference for part in parts if part is not None)
        again = 0.0 if self.rebuilt is None else self.rebuilt.difference
        return self.total.difference - explained - again

    def as_data(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "metric": self.metric,
            "total": comparison_data(self.total),
            "shares": [share.as_data() for share in self.shares],
            "rebuilt": comparison_data(self.rebuilt),
            "left_over": self.left_over,
        }


@dataclass(frozen=True)
class Attribution:
    """Accounts by test and metric; `failures` say which replays have no result, and why."""

    accounts: Sequence[Account]
    failures: Sequence[tuple[str, Failure]]
    made: Mapping[str, int]
    """Stages that were built for it, by kind."""
    stopped: bool

    def as_data(self) -> dict[str, Any]:
        return {
            "accounts": [each.as_data() for each in self.accounts],
            "failures": {name: str(failure) for name, failure in self.failures},
            "made": dict(self.made),
        }


@dataclass(frozen=True)
class Replays:
    """The members between A and B, each by the factors that it takes of B."""

    store: Store
    before: History
    after: History
    tests: tuple[str, ...]
    factors: Sequence[Factor]
    members: Mapping[Taken, Member]
    loader: Replay
    model_as_it_is: bool
    """Whether trained models are one factor, because their trainings cannot be written as a config."""

    @property
    def study(self) -> Study:
        """What the machinery of studies plans and runs."""
        title = f"diff {self.before.side.given} {self.after.side.given}"
        members = {member.name: member for member in self.members.values()}
        return Study(Path(title.replace("/", ":")), title, members, ())

    def plan(self) -> StudyPlan:
        """The stages that it takes, built or not, and what those to build will cost."""
        nodes = Nodes.of(self.study.members.values(), self.loader)
        return plan_study(self.study, nodes, Estimator(self.store))

    def run(
        self,
        slots: Slots = ONE_SLOT,
        on_change: Callable[[StageEvent], None] = ignore,
    ) -> Attribution:
        """Build what is missing, and say what each factor explains.

        Ask `require_images` of the loader first, so that no training is lost to a missing image.
        """
        study = self.study
        members = list(study.members.values())
        outcome = run_members(members, self.loader, study.path, slots=slots, on_change=on_change)
        by_name = {each.member.name: each for each in outcome.members}
        accounts = [
            account
            for test in self.tests
            for metric in METRICS
            if (account := self._account(test, metric, by_name)) is not None
        ]
        failures = [(each.member.name, each.failure) for each in outcome.members if each.failure]
        return Attribution(accounts, failures, outcome.made, outcome.stopped)

    def _account(self, test: str, metric: Metric, outcomes: Mapping[str, MemberOutcome]) -> Account | None:
        evaluations: dict[Taken, Artifact] = {}
        for taken, member in self.members.items():
            made = outcomes[member.name].artifacts
            evaluation = made.get(f"evaluation:{test}") or made.get("evaluation")
            if evaluation is not None:
                evaluations[taken] = evaluation
        before, after = (each.side.evaluations[test] for each in (self.before, self.after))
        keys = tuple(each and each.key for each in map(evaluations.get, (Taken(), Taken(self.factors))))
        return account(
            test,
            metric,
            self.factors,
            {taken: by_query(self.store, each, metric) for taken, each in evaluations.items()},
            (by_query(self.store, before, metric), by_query(self.store, after, metric)),
            is_rebuilt=keys != (before.key, after.key),
        )


def account(
    dataset: str,
    metric: Metric,
    factors: Sequence[Factor],
    found: Mapping[Taken, Values],
    ends: tuple[Values, Values],
    *,
    is_rebuilt: bool,
) -> Account | None:
    """What each factor explains; None where no query is in all results.

    found
        the metric by query, a fraction, of each replay, by the factors that it takes from B; a replay that
        failed is missing.
    ends
        those of A and B as they are; `is_rebuilt` says that their replays are other artifacts.
    """
    queries = set.intersection(*(set(values) for values in (*ends, *found.values())))
    old, new = ({name: values[name] for name in queries} for values in ends)
    total = compare_values(old, new, metric)
    if total is None:
        return None
    start, end = found.get(Taken()), found.get(Taken(factors))
    shares = []
    for factor in factors:
        alone = (found.get(Taken([factor])), start)
        last = (end, found.get(Taken(factors) - {factor}))
        parts = ([(*alone, 1.0)], [(*last, 1.0)], [(*alone, 0.5), (*last, 0.5)])
        shares.append(Share(factor.title, *(_sum(metric, queries, each) for each in parts)))
    rebuilt = _sum(metric, queries, [(start, old, 1.0), (new, end, 1.0)]) if is_rebuilt else None
    return Account(dataset, metric, total, shares, rebuilt)


def replays_between(before: History, after: History, store: Store) -> Replays:
    """What has to be run to say what each difference explains; runs nothing.

    Raises ConfigError where nothing differs that can be replayed, StageError where artifacts are gone.
    """
    tests = tuple(name for name in before.side.evaluations if name in after.side.evaluations)
    if not tests:
        raise ConfigError(
            "--attribute: the tests of both sides have different names, so none can be replayed"
        )
    for which, history in (("A", before), ("B", after)):
        if history.gone:
            raise StageError(
                f"--attribute: {', '.join(history.gone)} of {which}: gone from {store}, so {which} "
                "cannot be replayed; run its config again, or compare without --attribute"
            )
        if "detector" not in history.stages:
            raise StageError(
                f"--attribute: {which} has no detector in {store}: it was trained on features from elsewhere"
            )
        for test in tests:
            if history.settings()["evaluation"][test]["test"]["split"] is None:
                raise StageError(
                    f"--attribute: the evaluation of {which} does not record which split of {test} it is on "
                    "(an earlier version built it): run its config again with --from detections"
                )
    trained = before.is_retrained and after.is_retrained
    if trained:
        found = _replays(before, after, store, tests, model_as_it_is=False)
        ends = ((Taken(), before), (Taken(found.factors), after))
        if not any(found.loader.differing_models(found.members[taken], of) for taken, of in ends):
            return found
    return _replays(before, after, store, tests, model_as_it_is=True)


def _replays(
    before: History, after: History, store: Store, tests: tuple[str, ...], *, model_as_it_is: bool
) -> Replays:
    """With the finest factors that can be taken one by one: a field may not be valid without another."""
    start, end = (RunSettings.of(each, tests, model_as_it_is=model_as_it_is) for each in (before, after))
    refused: ConfigError | None = None
    for grain in GRAINS:
        factors = factors_between(start, end, grain)
        if not factors:
            raise ConfigError(
                "--attribute: neither data nor recipes differ, so there is nothing to replay; what differs "
                "is how they were built, see code and machine"
            )
        loader = Replay(str(store), tests=tests, sides=(before, after))
        members = {}
        for taken in _wanted(factors):
            member = Member(_name(taken, factors), Path("diff"), until=UNTIL)
            loader.settings[member.name] = mixed(start, end, [each for each in factors if each in taken])
            members[taken] = member
        try:
            for member in members.values():
                loader.load(member)
        except ConfigError as error:
            refused = error
            continue
        return Replays(store, before, after, tests, factors, members, loader, model_as_it_is)
    raise ConfigError(f"--attribute: the differences cannot be taken one at a time: {refused}") from refused


def _wanted(factors: Sequence[Factor]) -> list[Taken]:
    """A, A with each factor, B without each, B; each once."""
    every = Taken(factors)
    alone = (Taken([factor]) for factor in factors)
    return list(dict.fromkeys([Taken(), *alone, *(every - {factor} for factor in factors), every]))


def _name(taken: Taken, factors: Sequence[Factor]) -> str:
    names = [factor.title for factor in factors if factor in taken]
    left = [factor.title for factor in factors if factor not in taken]
    if not names or not left:
        return "B" if names else "A"
    return f"A with B's {names[0]}" if len(names) == 1 else f"B with A's {', '.join(left)}"


def _sum(
    metric: Metric, queries: set[str], parts: Sequence[tuple[Values | None, Values | None, float]]
) -> Comparison | None:
    """The weighted sum of differences (new, old, weight) by query, compared with none at all."""
    total = dict.fromkeys(queries, 0.0)
    for new, old, weight in parts:
        if new is None or old is None:
            return None
        for query in queries:
            total[query] += weight * (new[query] - old[query])
    return compare_values(dict.fromkeys(queries, 0.0), total, metric)
