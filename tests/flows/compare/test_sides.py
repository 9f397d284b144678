"""What A and B may be, and what is said of anything else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from flows.compare.sides import find_side
from flows.errors import ConfigError
from flows.run.records import RunRecord, new_record_path
from storage.store import Artifact
from storage.tags import set_tag
from tests.flows.report.invented import HOSTILE
from tests.flows.report.invented_diff import TwoResults


def recorded(results: TwoResults, config: Path, *evaluations: Artifact, failed: bool = False) -> str:
    """A finished run of a config, which built these evaluations."""
    record = RunRecord(new_record_path(results.store.root), str(config))
    for each in evaluations:
        name = "evaluation" if len(evaluations) == 1 else f"evaluation:{each.key}"
        record.stages.append({"stage": name, "state": "failed" if failed else "made", "key": each.key})
    record.end()
    return record.name


def test_each_way_to_name_a_result(results: TwoResults, tmp_path: Path) -> None:
    store, config = results.store, tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"store": str(store)}))
    first = recorded(results, config, results.before)
    branch = results.made.plan()["reid"].artifact
    assert branch is not None
    set_tag(store, "production", f"reid/{branch.key}")
    named = {
        first: results.before,
        str(config): results.before,
        f"evaluation/{results.after.key}": results.after,
        results.before.key[:10]: results.before,
    }
    for name, expected in named.items():
        side = find_side(store, name)
        assert {test: each.key for test, each in side.evaluations.items()} == {HOSTILE: expected.key}, name
    # A model stands for its newest evaluation; these two were built within one second.
    for name in ("production", f"reid/{branch.key}"):
        found = find_side(store, name).evaluations[HOSTILE]
        assert found.manifest.created == max(
            each.manifest.created for each in (results.before, results.after)
        )
    assert find_side(store, "production").said == f"tag production, reid/{branch.key}"
    assert find_side(store, f"evaluation/{results.before.key}").config == config

    time.sleep(1)  # the ids of runs tell seconds apart
    later = recorded(results, config, results.after)
    assert later in find_side(store, str(config)).said
    with pytest.raises(ConfigError, match="several evaluations"):
        find_side(store, recorded(results, config, results.before, results.after))


@pytest.mark.parametrize("name", ["nothing", "20260101T000000-abcdef", "missing.yaml", "evaluation/0000"])
def test_another_name_gets_one_message_that_lists_what_there_is(results: TwoResults, name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        find_side(results.store, name)
    said = str(refused.value)
    assert name in said and "\n" not in said
    for word in ("`personsearch status` prints", "FILE.yaml", "evaluation/KEY", "a tag"):
        assert word in said


def test_a_run_without_results_is_refused(results: TwoResults, tmp_path: Path) -> None:
    failed = recorded(results, tmp_path / "other.yaml", results.before, failed=True)
    with pytest.raises(ConfigError, match="ended before its results"):
        find_side(results.store, failed)
