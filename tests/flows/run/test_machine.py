"""`personsearch doctor`: each problem comes with advice, and only what stops runs ends it with status 2."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.run import machine
from flows.run.machine import Fact, examine


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


def test_versions_that_are_known_to_fail_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = machine.version
    monkeypatch.setattr(machine, "version", lambda name: "2.1.0" if name == "sqlalchemy" else installed(name))
    assert "cron schedules" in str(facts()["sqlalchemy"].advice)


def test_locks_that_exclude_no_one_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def everyone(path: Path) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(machine, "exclusive_now", everyone)
    assert "do not exclude each other" in str(facts(str(tmp_path))["store"].advice)


def test_the_command_ends_with_2_only_where_runs_would_fail(tmp_path: Path) -> None:
    def told(*words: str) -> subprocess.CompletedProcess[str]:
        limit = (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        return subprocess.run(
            [sys.executable, "-m", "flows.cli.main", "doctor", *words],
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
        )

    slow = told("--store", str(tmp_path))
    assert slow.returncode == 0 and "ulimit -n" in slow.stdout
    broken = told("--store", "/proc/store")
    assert broken.returncode == 2 and broken.stderr.startswith("error: runs will fail on this machine")
