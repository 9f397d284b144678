"""Settings between A and B: all factors give B, none A, and each takes what is its own."""

from __future__ import annotations

import itertools
from dataclasses import replace

from flows.compare.factors import GRAINS, RunSettings, factors_between, mixed
from flows.compare.history import REID, TRAIN, TrainedView

A = RunSettings(
    {
        "detector": {"seed": 0, "training": {"lr": 1.0}},
        "roi": {"variant": "j3"},
        "reid": {"lr": 1e-3, "branch": {"dim": 8, "norm": "batch"}, "seed": 0},
        "evaluation": {"prw": {"score_threshold": 0.5}},
    },
    {"prw": "ingest/1", "mot": "ingest/2"},
    (
        TrainedView(TRAIN, "prw", {"split": "train"}),
        TrainedView(TRAIN, "mot", {"split": "train"}),
        TrainedView(REID, "prw", {"split": "train"}),
    ),
)
B = RunSettings(
    {
        "detector": {"seed": 1, "training": {"lr": 2.0}},
        "roi": {"variant": "j2"},
        "reid": {"lr": 1e-4, "branch": {"dim": 9, "norm": "group"}, "seed": 1},
        "evaluation": {"prw": {"score_threshold": 0.3}},
    },
    {"prw": "ingest/3", "city": "ingest/4"},
    (
        TrainedView(TRAIN, "city", {"split": "train"}),
        TrainedView(TRAIN, "prw", {"split": "train"}),
        TrainedView(REID, "prw", {"split": "train"}),
    ),
)


def test_factors_stand_in_the_order_of_the_stages_with_seeds_last() -> None:
    assert [each.title for each in factors_between(A, B, "fields")] == [
        "data of city",
        "data of mot",
        "data of prw",
        "detector recipe",
        "features and ROI",
        "reid.branch",
        "reid.lr",
        "evaluation recipe",
        "detector.seed",
        "reid.seed",
    ]
    assert [each.title for each in factors_between(A, B, "recipes together")] == [
        "data of city, mot, prw",
        "recipes",
        "seeds",
    ]
    assert not factors_between(A, A, "fields")


def test_all_factors_give_b_and_none_gives_a() -> None:
    for grain in GRAINS:
        factors = factors_between(A, B, grain)
        assert mixed(A, B, factors) == B
        assert mixed(A, B, []) == A
        assert mixed(B, A, factors_between(B, A, grain)) == A


def test_a_factor_takes_what_is_its_own() -> None:
    factors = {each.title: each for each in factors_between(A, B, "fields")}
    rate = mixed(A, B, [factors["reid.lr"]])
    assert rate == replace(A, recipes={**A.recipes, "reid": {**A.recipes["reid"], "lr": 1e-4}})
    without = mixed(A, B, [factors["data of mot"]])
    assert without.snapshots == {"prw": "ingest/1"} and without.recipes == A.recipes
    assert [each.dataset for each in without.entries] == ["prw", "prw"]
    more = mixed(A, B, [factors["data of city"]])
    assert more.snapshots == {**A.snapshots, "city": "ingest/4"}
    assert [each.dataset for each in more.entries] == ["prw", "mot", "prw", "city"]
    # The order of factors does not matter.
    some = list(factors.values())[1:6:2]
    assert len({repr(mixed(A, B, order)) for order in itertools.permutations(some)}) == 1
