"""A run's first stage begins while Prefect comes up: once, and never without an end."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config.loading import load_config
from flows.config.request import RunRequest
from flows.errors import ConfigError, Failure, StageError
from flows.run.records import read_records
from flows.run.walk import Walk, kept, new_record
from storage.local import LocalStore


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    """Of a config whose first stage reads a dataset without images."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    config = tmp_path / "config.yaml"
    config.write_text(
        "store: store\ndatasets: {d: {adapter: coco, root: root, allow_empty: true}}\n"
        "detector: {train: [{dataset: d, split: train}]}\n"
    )
    return RunRequest(config=config)


def ignore(*_: object, **__: object) -> None:
    """Progress that is not looked at."""


def test_a_machine_that_does_not_see_the_store_of_its_study_says_so(
    request_: RunRequest, tmp_path: Path
) -> None:
    study = new_record(request_)
    for_study = request_.model_copy(update={"study": study.path})
    with pytest.raises(ConfigError, match=f"does not see the study's store {tmp_path / 'store'}: mount"):
        new_record(for_study)
    study.write()
    assert new_record(for_study).path.parent == study.path.parent


def test_the_stage_that_was_begun_is_handed_over_once(request_: RunRequest, tmp_path: Path) -> None:
    record = new_record(request_)
    with kept(record):
        walk = Walk.of(request_, record)
        with walk.head_start():
            (told,) = read_records(tmp_path / "store")
            assert [(stage["stage"], stage["state"]) for stage in told.stages] == [("ingest:d", "running")]
            planned = walk.next()
            assert planned is not None
            begun = walk.begin(planned)
            artifact = begun.artifact(on_progress=ignore)
            retried = walk.begin(planned)
            retried.process.stop()
            assert retried is not begun
        walk.made(planned, artifact)
        assert walk.artifacts == {"ingest:d": artifact}


def test_a_secret_under_run_is_recorded_nowhere(request_: RunRequest) -> None:
    told = "detector.training.steps=3"
    overrides = ("run.notify=https://host/secret", "run={notify: https://host/secret}", told)
    assert new_record(request_.model_copy(update={"overrides": overrides})).overrides == [told]
    assert load_config(request_.config, overrides).written_as == f"config.yaml --set {told}"


def test_what_is_not_handed_over_is_stopped(request_: RunRequest) -> None:
    walk = Walk.of(request_, new_record(request_))
    with pytest.raises(ConnectionError, match="no API"), walk.head_start():
        begun = walk._begun
        raise ConnectionError("no API")
    assert begun is not None and begun.process.child.exit_status is not None


def test_what_a_run_may_not_make_is_not_begun(request_: RunRequest) -> None:
    only = request_.model_copy(update={"only": ("report",)})
    walk = Walk.of(only, new_record(only))
    with walk.head_start():
        planned = walk.next()
        assert planned is not None and walk._begun is None
        assert "this run builds only report" in (walk.refusal(planned) or "")


def test_what_is_wrong_is_said_by_who_follows_and_in_the_record(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StageError("a test image is a training image")

    monkeypatch.setattr("flows.run.walk.resolve", refuse)
    record = new_record(request_)
    walk = Walk.of(request_, record)
    with pytest.raises(StageError, match="a test image"), kept(record), walk.head_start():
        walk.next()
    (told,) = read_records(tmp_path / "store")
    assert told.failure == Failure("refused", "a test image is a training image")
    assert told.finished is not None
    with pytest.raises(ConfigError, match="there is no stage"):
        Walk.of(request_.model_copy(update={"until": "everything"}), record)
    assert not list(LocalStore(tmp_path / "store").keys())
