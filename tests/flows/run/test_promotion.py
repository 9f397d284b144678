"""A tag moves only to a model that is not worse by the same queries; and nights that got worse are told."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.config.sections import Promotion
from flows.run import promotion
from flows.run.nights import worse_than_before
from flows.run.promotion import Verdict, judge, promote
from flows.run.records import RunRecord, new_record_path
from flows.stages.evaluation import PER_QUERY
from storage.errors import StorageError
from storage.local import LocalStore
from storage.manifest import Identity
from storage.store import Artifact
from storage.tags import set_tag, tags
from tests.storage.making import make_artifact, name_of

QUERIES = 40
OLD = np.linspace(0.3, 0.7, QUERIES)
NOISE = np.random.default_rng(3).normal(0, 1, QUERIES)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def evaluated(
    store: LocalStore,
    model: Artifact,
    ap: np.ndarray,
    *,
    truth: str = "test data",
    protocol: str = "prw",
    first: int = 0,
) -> Artifact:
    """An evaluation of a model: its first setting is the headline, by query; `first` numbers the queries."""
    inputs = {"gallery": f"{model.key} {ap.sum()}", "truth": truth}
    identity = Identity(kind="evaluation", version=2, recipe={"protocol": protocol}, inputs=inputs)
    with store.making(identity) as work:
        if work.made is not None:
            return work.made
        ids = [f"q{first + number}" for number in range(len(ap))]
        table = {"setting": ["prw"] * len(ap), "query_id": ids, "ap": ap, "hit1": ap > 0.5}
        wrong = {**table, "setting": ["another"] * len(ap), "ap": np.zeros(len(ap))}
        pq.write_table(pa.concat_tables([pa.table(table), pa.table(wrong)]), work.path / PER_QUERY)
        return work.commit(f"{identity.key}", sources={"gallery": name_of(model)})


def verdict(store: LocalStore, change: np.ndarray, **section: Any) -> str:
    old, new = make_artifact(store, "reid", 1), make_artifact(store, "reid", 2)
    evaluated(store, old, OLD)
    set_tag(store, "production", name_of(old))
    found = judge(
        Promotion(tag="production", **section),
        new,
        {"evaluation": evaluated(store, new, OLD + change)},
        store,
    )
    assert str(found).startswith("tag production: goes from" if found.moves else "tag production: stays at")
    return found.outcome


def test_the_first_model_gets_the_tag_and_then_has_it(store: LocalStore) -> None:
    model = make_artifact(store, "reid")
    tests = {"evaluation": evaluated(store, model, OLD)}
    first = judge(Promotion(tag="production"), model, tests, store)
    assert first.outcome == "first" and first.moves and "nothing to compare with" in str(first)
    set_tag(store, "production", name_of(model))
    again = judge(Promotion(tag="production"), model, tests, store)
    assert again.outcome == "unchanged" and not again.moves and not again.is_bad_news


def test_the_lower_end_of_the_paired_interval_decides(store: LocalStore) -> None:
    assert verdict(store, np.full(QUERIES, 0.02)) == "allowed"
    assert verdict(store, np.full(QUERIES, -0.004)) == "allowed", "within the tolerance of 0.5 points"
    assert verdict(store, np.full(QUERIES, -0.006)) == "worse"
    # Better on average, by queries that differ so much that it may be worse.
    uncertain = 0.002 + 0.1 * (NOISE - NOISE.mean())
    assert verdict(store, uncertain) == "worse"
    assert verdict(store, uncertain, paired=False) == "allowed"
    assert verdict(store, uncertain, tolerance=10) == "allowed"
    assert verdict(store, np.where(OLD < 0.5, -0.02, 0), metric="rank1") == "allowed"


@pytest.mark.parametrize("difference", [{"truth": "other data"}, {"protocol": "cuhk_sysu"}])
def test_what_is_not_comparable_is_not_promoted(store: LocalStore, difference: dict[str, str]) -> None:
    old, new = make_artifact(store, "reid", 1), make_artifact(store, "reid", 2)
    set_tag(store, "production", name_of(old))
    after = {"evaluation": evaluated(store, new, OLD)}
    found = judge(Promotion(tag="production"), new, after, store)
    assert found.outcome == "unknown" and "was evaluated on no test at all in this store" in str(found)
    evaluated(store, old, OLD, **difference)
    found = judge(Promotion(tag="production"), new, after, store)
    assert found.is_bad_news and "on other test data or another protocol" in str(found)


def test_every_test_of_the_config_has_to_allow_it(store: LocalStore) -> None:
    old, new = make_artifact(store, "reid", 1), make_artifact(store, "reid", 2)
    set_tag(store, "production", name_of(old))
    tests = {}
    for name, change in (("prw", 0.02), ("other", -0.02)):
        evaluated(store, old, OLD, truth=name)
        tests[f"evaluation:{name}"] = evaluated(store, new, OLD + change, truth=name)
    found = judge(Promotion(tag="production"), new, tests, store)
    assert found.outcome == "worse" and "other: mAP -2.0 points" in str(found)


def test_runs_that_end_together_leave_the_best_model(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are better than the model with the tag; who is second compares with the one that was faster."""
    old, good, best = (make_artifact(store, "reid", number) for number in (1, 2, 3))
    evaluated(store, old, OLD)
    set_tag(store, "production", name_of(old))
    runs = {
        name_of(model): {"reid": model, "evaluation": evaluated(store, model, OLD + gain)}
        for model, gain in ((good, 0.1), (best, 0.2))
    }
    config = SimpleNamespace(
        promote=Promotion(tag="production"), branch_stage="reid", evaluation={"evaluation": None}
    )
    both, judged = threading.Barrier(2), threading.local()

    def judge_together(*args: Any) -> Verdict:
        found = judge(*args)
        if not hasattr(judged, "once"):
            judged.once = both.wait(10)
        return found

    monkeypatch.setattr(promotion, "judge", judge_together)
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda artifacts: promote(config, artifacts, store), runs.values()))  # type: ignore[arg-type]
    assert tags(store) == {"production": name_of(best)}
    second = next(each for each in verdicts if each is not None and each.before != name_of(old))
    assert (second.outcome, second.model) in (("worse", name_of(good)), ("allowed", name_of(best)))


def test_a_tag_that_keeps_moving_is_left_alone(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_artifact(store, "reid", 1)
    artifacts = {"reid": model, "evaluation": evaluated(store, model, OLD)}
    config = SimpleNamespace(
        promote=Promotion(tag="production"), branch_stage="reid", evaluation={"evaluation": None}
    )
    monkeypatch.setattr(store, "swap_tag", lambda *_: False)
    with pytest.raises(StorageError, match="tag 'production' was not moved in 10 tries"):
        promote(config, artifacts, store)  # type: ignore[arg-type]


def test_a_night_got_worse_by_the_queries_that_both_have(store: LocalStore) -> None:
    model = make_artifact(store, "reid")
    before = evaluated(store, model, OLD, truth="yesterday")
    night = {"stage": "evaluation", "state": "made", "key": before.key}
    last = RunRecord(new_record_path(store.root), "nightly.yaml", stages=[night])
    last.end()
    RunRecord(new_record_path(store.root), "nightly.yaml", overrides=["reid.lr=1"]).end()

    def worse(ap: np.ndarray, first: int = 0) -> list[str]:
        after = evaluated(store, model, ap, truth="today", first=first)
        record = RunRecord(new_record_path(store.root), "nightly.yaml")
        return worse_than_before(record, {"evaluation": after, "reid": model}, store)

    assert worse(OLD) == worse(OLD - 0.004) == worse(OLD - 0.02, first=QUERIES) == []
    assert worse(OLD + 0.1 * (NOISE - NOISE.mean()) - 0.006) == [], "that may be chance"
    (said,) = worse(np.concatenate([OLD - 0.02, np.ones(5)]))
    assert (
        said.startswith("evaluation got worse since the last run: mAP -2.0 points")
        and "over 40 queries" in said
    )
