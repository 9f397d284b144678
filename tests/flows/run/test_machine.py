"""`personsearch doctor`: each problem comes with advice, and only what stops runs ends it with status 2."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.cli.main import main
from flows.run import machine
from flows.run.machine import Fact, examine
from tests.forking import Program


def facts(store: str | None = None) -> dict[str, Fact]:
    return {fact.name: fact for fact in examine(store)}


def test_a_sound_machine_has_nothing_broken(tmp_path: Path) -> None:
    found = facts(str(tmp_path / "not" / "there" / "yet"))
    assert [fact for fact in found.values() if fact.level == "broken"] == []
    assert "free" in found["store"].value and not (tmp_path / "not").exists()


def test_every_problem_comes_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PERSONSEARCH_DATA", "/not/there")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    found = facts("/proc/store")
    assert found["store"].level == found["Prefect API"].level == found["$PERSONSEARCH_DATA"].level == "broken"
    assert "choose another folder" in str(found["store"].advice)
    assert "unset PREFECT_API_URL" in str(found["Prefect API"].advice)
    if len(os.sched_getaffinity(0)) > 1:
        assert "run.threads" in str(found["OMP_NUM_THREADS"].advice)
    assert all(fact.advice for fact in found.values() if fact.level != "ok")


def test_locks_that_exclude_no_one_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def everyone(path: Path) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(machine, "exclusive_now", everyone)
    assert "do not exclude each other" in str(facts(str(tmp_path))["store"].advice)


def _doctor(words: tuple[str, ...]) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    sys.argv = ["personsearch", "doctor", *words]
    main()


def test_the_command_ends_with_2_only_where_runs_would_fail(tmp_path: Path) -> None:
    def told(*words: str) -> tuple[int, str, str]:
        output, error = tmp_path / "output", tmp_path / "error"
        for file in (output, error):
            file.write_text("")
        status = Program(_doctor, words, output=output, error=error).wait(120)
        return status, output.read_text(), error.read_text()

    status, output, _ = told("--store", str(tmp_path))
    assert status == 0 and "ulimit -n" in output
    status, _, error = told("--store", "/proc/store")
    assert status == 2 and error.startswith("error: runs will fail on this machine")
