"""What is told of two results: recipes by their fields, code and machine, figures by query."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.compare.differences import difference
from flows.compare.results import shared_tests
from flows.config.fields import config_fields
from flows.errors import ConfigError
from flows.run.comparing import by_query
from tests.flows.report.invented import HOSTILE
from tests.flows.report.invented_diff import TwoResults


def test_recipes_differ_by_fields_as_configs_name_them(results: TwoResults) -> None:
    found = results.difference()
    said = {str(each) for each in found.fields["recipes"]}
    assert said == {
        f"evaluation.{HOSTILE}.cross_camera: false -> true",
        f"evaluation.{HOSTILE}.readings: all -> not given",
        f"evaluation.{HOSTILE}.score_threshold: 0.5 -> 0.9",
    }
    assert not found.data and not any(found.fields[name] for name in ("seeds", "code", "machine"))
    for name in found.before.settings():
        assert config_fields(name), "its sections are those of a config"


def test_the_paired_difference_is_that_of_the_queries(results: TwoResults) -> None:
    (test,) = results.difference(moved=2).tests
    old, new = (by_query(results.store, each, "mAP") for each in (results.before, results.after))
    changes = {name: new[name] - old[name] for name in old}
    compared = test.compared["mAP"]
    assert compared is not None and compared.queries == len(old)
    assert compared.difference == pytest.approx(100 * sum(changes.values()) / len(old))
    assert test.n_moved == sum(change != 0 for change in changes.values()) > 2 == len(test.moved)
    assert abs(test.moved[0].after - test.moved[0].before) == max(map(abs, changes.values()))
    assert test.as_data()["metrics"]["mAP"]["a"] == pytest.approx(sum(old.values()) / len(old))


def test_code_and_machine_are_told_with_their_stages(results: TwoResults) -> None:
    found = results.difference()
    name = f"evaluation:{HOSTILE}"
    made = found.after.stages[name]
    libraries = {"numpy": "0.1", "torch": "9.9"}
    other = made.model_copy(update={"made_by": {**made.made_by, "libraries": libraries, "threads": 7}})
    found.after.stages[name] = other
    again = difference(found.before, found.after, results.store, 0)
    assert [each.name for each in again.fields["code"]] == ["libraries.numpy", "libraries.torch"]
    assert str(again.fields["code"][1]) == "libraries.torch: not given -> 9.9" and again.fields["code"][
        1
    ].stages == (name,)
    assert [str(each) for each in again.fields["machine"]] == ["threads: 1 -> 7"]


def test_sides_without_a_common_test_are_refused(results: TwoResults) -> None:
    side = results.difference().before.side
    other = replace(side, evaluations={"x": results.after})
    assert shared_tests(side, other) == {HOSTILE: (results.before, results.after)}
    several = replace(side, evaluations={"x": results.after, "y": results.after})
    with pytest.raises(ConfigError, match="no test in common"):
        shared_tests(side, several)
