"""Fields that differ, by names that `--set` takes."""

from __future__ import annotations

import pytest

from flows.config.raw import apply_override
from flows.plan.changes import NOT_GIVEN, changed_fields, with_field

OLD = {"lr": 1, "branch": {"dim": 8}, "phases": [{"epochs": 1}, {"epochs": 2}], "sizes": [1, 2], "gone": 3}
NEW = {"lr": 1, "branch": {"dim": 9}, "phases": [{"epochs": 1}, {"epochs": 5}], "sizes": [1, 4], "new": None}


def test_every_field_that_differs_is_named_as_set_takes_it() -> None:
    assert [str(each) for each in changed_fields(OLD, NEW)] == [
        "branch.dim 8 -> 9",
        "gone 3 -> not given",
        "new not given -> None",
        "phases.1.epochs 2 -> 5",
        "sizes [1, 2] -> [1, 4]",
    ]
    changed: dict[str, object] = {"branch": {"dim": 8}, "phases": [{"epochs": 1}, {"epochs": 2}]}
    for override in ("branch.dim=9", "phases.1.epochs=5"):
        apply_override(changed, override)
    assert (changed["branch"], changed["phases"]) == (NEW["branch"], NEW["phases"])


def test_lists_of_another_length_differ_as_a_whole() -> None:
    (found,) = changed_fields({"phases": [{"epochs": 1}]}, {"phases": []})
    assert (found.name, found.old, found.new) == ("phases", [{"epochs": 1}], [])


def test_taking_every_change_gives_the_other_side_and_leaves_this_one() -> None:
    before = repr(OLD)
    mixed: object = OLD
    for change in changed_fields(OLD, NEW):
        mixed = with_field(mixed, change.path, change.new)
    assert mixed == NEW and repr(OLD) == before
    assert with_field({"a": 1}, ("b", "c"), 2) == {"a": 1, "b": {"c": 2}}
    assert with_field({"a": 1}, ("a",), NOT_GIVEN) == {}


@pytest.mark.parametrize("same", [{}, {"a": [{"b": 1}]}, {"a": None}])
def test_equal_sides_have_no_changes(same: dict[str, object]) -> None:
    assert not list(changed_fields(same, dict(same)))
