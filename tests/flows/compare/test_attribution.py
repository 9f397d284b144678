"""What factors explain, from figures by query that are made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from flows.compare.attribution import Account, Taken, account
from flows.compare.factors import Factor

QUERIES = [f"q{number}" for number in range(30)]
NOISE = dict(zip(QUERIES, np.random.default_rng(0).normal(0, 0.02, len(QUERIES)), strict=True))
RATE, CAMERA, SEED = (Factor(title) for title in ("reid.lr", "data of prw", "seeds"))


def explain(
    factors: Sequence[Factor], value: Callable[[Taken], float], *, without: Sequence[Taken] = ()
) -> Account:
    """The account where a replay's mean is `value` of what it takes from B."""
    every = Taken(factors)
    wanted = {Taken(), every, *(Taken([each]) for each in factors), *(every - {each} for each in factors)}
    found = {
        taken: {query: value(taken) + NOISE[query] * len(taken) for query in QUERIES}
        for taken in wanted
        if taken not in without
    }
    ends = ({query: value(Taken()) for query in QUERIES}, dict(found[every]))
    made = account("prw", "mAP", factors, found, ends, is_rebuilt=False)
    assert made is not None
    return made


def shares(made: Account) -> dict[str, float]:
    return {share.title: share.both.difference for share in made.shares if share.both is not None}


def test_effects_that_add_up_are_found_as_they_are() -> None:
    effects = {RATE: -0.3, CAMERA: -0.1, SEED: 0.01}
    made = explain([RATE, CAMERA, SEED], lambda taken: 0.6 + sum(effects[each] for each in taken))
    found = shares(made)
    for factor, effect in effects.items():
        assert found[factor.title] == pytest.approx(100 * effect, abs=1.0)
    assert sum(found.values()) == pytest.approx(made.total.difference, abs=1e-9)
    assert made.left_over == pytest.approx(0, abs=1e-9)
    rate = made.shares[0].both
    assert rate is not None and rate.low < rate.difference < rate.high < 0


def test_two_factors_that_act_together_share_it_and_three_leave_it_over() -> None:
    def together(taken: Taken) -> float:
        return 0.5 + (0.2 if {RATE, CAMERA} <= taken else 0.0)

    both = explain([RATE, CAMERA], together)
    assert shares(both)["reid.lr"] == pytest.approx(10, abs=1)
    assert both.left_over == pytest.approx(0, abs=1e-9)
    rate = both.shares[0]
    assert rate.alone is not None and rate.last is not None
    assert (rate.alone.difference, rate.last.difference) == pytest.approx((0, 20), abs=1)

    def all_three(taken: Taken) -> float:
        return 0.5 + (0.3 if len(taken) == 3 else 0.0)

    three = explain([RATE, CAMERA, SEED], all_three)
    assert three.left_over == pytest.approx(30 - 3 * 15, abs=1)


def test_a_replay_that_failed_leaves_its_factor_open() -> None:
    made = explain([RATE, CAMERA, SEED], lambda taken: 0.5, without=[Taken([RATE])])
    rate, camera, _ = made.shares
    assert rate.alone is None and rate.both is None and rate.last is not None
    assert camera.both is not None and made.left_over is None
    assert made.as_data()["shares"][0]["both"] is None


def test_what_building_again_changes_is_told_apart() -> None:
    found = {Taken(): dict.fromkeys(QUERIES, 0.4), Taken([RATE]): dict.fromkeys(QUERIES, 0.6)}
    ends = (dict.fromkeys(QUERIES, 0.35), dict.fromkeys(QUERIES, 0.6))
    made = account("prw", "mAP", [RATE], found, ends, is_rebuilt=True)
    assert made is not None and made.rebuilt is not None
    assert made.rebuilt.difference == pytest.approx(5) and shares(made) == pytest.approx({"reid.lr": 20})
    assert made.total.difference == pytest.approx(25) and made.left_over == pytest.approx(0)


def test_without_a_common_query_there_is_no_account() -> None:
    found = {Taken(): {"a": 0.5}, Taken([RATE]): {"b": 0.5}}
    assert account("prw", "mAP", [RATE], found, ({"a": 0.5}, {"b": 0.5}), is_rebuilt=False) is None
