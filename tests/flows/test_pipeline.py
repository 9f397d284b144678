"""The flow's own decisions, asked without an API: retries, refusals, and what a collection takes away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Failed
from prefect.tasks import Task
from pydantic import ValidationError

from flows import pipeline
from flows.config.loading import load_config
from flows.config.request import RunRequest
from flows.errors import RETRY_DELAYS, Failure, Interrupted, StageError, StageFailed
from flows.plan.states import Planned
from flows.run.records import RunRecord, new_record_path, read_records
from flows.run.walk import Walk, resolve_and_record
from flows.stages.base import Stage
from storage.local import LocalStore
from storage.store import Artifact
from tests.storage.making import make_artifact

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"
STAGE = Stage("reid", "reid", version=1, recipe={"seed": 0}, maker="nobody:make")


def task_that_fails_by(
    error: Exception, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> tuple[Task[[str, str], Any], RunRecord]:
    def fail(*_: object, **__: object) -> Artifact:
        raise error

    monkeypatch.setattr(Walk, "begin", fail)
    record = RunRecord(new_record_path(store.root), "a.yaml")
    walk = Walk(load_config(DEMO), store, [], frozenset(), record)
    return pipeline._task(Planned(STAGE, "runs", "never made"), walk), record


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (StageFailed(Failure("died", "killed", "a.log")), Failure("died", "killed", "a.log")),
        (ConnectionError("no answer"), Failure("unreachable", "no answer")),
    ],
)
def test_what_may_end_well_next_time_is_tried_again(
    error: Exception, failure: Failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stage, record = task_that_fails_by(error, LocalStore(tmp_path), monkeypatch)
    with pytest.raises(type(error)) as raised:
        make_stage.fn("reid", "key")
    assert (make_stage.retries, make_stage.retry_delay_seconds) == (len(RETRY_DELAYS), RETRY_DELAYS)
    assert retried(make_stage, Failed(data=raised.value))
    assert record.failure == failure


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (StageFailed(Failure("broke", "a bug", "a.log")), Failure("broke", "a bug", "a.log")),
        (Interrupted("stopped"), Failure("interrupted", "stopped")),
        (StageError("bad input"), Failure("refused", "bad input")),
    ],
)
def test_what_would_end_the_same_way_is_not_tried_again(
    error: Exception, failure: Failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stage, record = task_that_fails_by(error, LocalStore(tmp_path), monkeypatch)
    state = make_stage.fn("reid", "key")
    assert state.is_failed() and state.message == str(failure) and record.failure == failure
    assert not retried(make_stage, state)


def retried(made: Task[[str, str], Any], state: State[Any]) -> bool:
    """As Prefect asks once a task has failed; in its own process a state holds the error itself."""
    condition: Any = made.retry_condition_fn
    return bool(condition(made, None, state))


def test_a_config_that_is_wrong_is_one_message_and_in_the_record(tmp_path: Path, prefect_api: str) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("store: store\nreeid: {}\n")
    state = pipeline.person_search(RunRequest(config=config), return_state=True)
    assert state.is_failed() and "reeid: unknown field" in (state.message or "")
    (record,) = read_records(tmp_path / "store")
    assert record.failure == Failure("refused", state.message or "") and record.finished is not None
    state = pipeline.person_search(RunRequest(config=tmp_path / "absent.yaml"), return_state=True)
    assert state.is_failed() and "does not exist" in (state.message or "")


def test_a_kind_that_no_stage_has_is_refused() -> None:
    assert RunRequest.model_validate({"config": "a.yaml", "only": ["detector"]}).only == ("detector",)
    with pytest.raises(ValidationError, match=r"only\.0\n.*'detector'"):
        RunRequest.model_validate({"config": "a.yaml", "only": ["detektor"]})


def test_what_a_collection_takes_before_the_record_names_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    made = make_artifact(store, "reid")
    record = RunRecord(new_record_path(store.root), "a.yaml")

    def collected(store: LocalStore, kind: str, key: str) -> bool:
        assert record.stages, "a collection that asks from now on is told"
        store.remove(kind, key)
        return False

    monkeypatch.setattr("flows.run.walk.stays", collected)
    planned = resolve_and_record(STAGE, store, {}, frozenset(), record)
    assert planned.identity == made.manifest.identity and planned.state == "runs" and record.stages == []
    make_artifact(store, "reid")
    monkeypatch.undo()
    planned = resolve_and_record(STAGE, store, {}, frozenset(), record)
    assert planned.state == "cached" and [stage["state"] for stage in record.stages] == ["cached"]
