"""A sweep on a work pool: a Prefect server, two workers that share an S3 store alone, and a hole."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.errors import ConfigError
from flows.run.pool_runs import work_pool
from storage.opening import open_store
from tests.end_to_end.commands import begin, personsearch
from tests.end_to_end.server import Server, bare_server, built_by, wait_until, workers
from tests.end_to_end.tiny import write_tiny_config

pytestmark = pytest.mark.slow

POOL = "studies"
URL = "s3://artifacts/swept"
FIELD = "reid.identities_per_batch=2,3,4000"
"""The last member asks for more identities than there are."""


@pytest.fixture
def server(
    s3: None, tmp_path: Path, prefect_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """The environment is that of commands of its machine."""
    with bare_server(tmp_path, prefect_database) as server:
        for name, value in (server.environment | {"PERSONSEARCH_CACHE": str(tmp_path / "own")}).items():
            monkeypatch.setenv(name, value)
        with temporary_settings({PREFECT_API_URL: server.url}):
            yield server


def test_each_shared_artifact_is_built_once_and_a_failed_member_is_a_hole(
    server: Server, tmp_path: Path, tiny_data: Path
) -> None:
    config = write_tiny_config(tmp_path, tiny_data)
    sweep = ("sweep", config, "--store", URL, "--on", POOL, "--out", tmp_path / "tables", "--set", FIELD)
    with pytest.raises(ConfigError, match="the server has no work pool of this name"), work_pool(POOL):
        pass

    server.ask("/work_pools/", {"name": POOL, "type": "process"})
    assert interrupted(sweep, tmp_path) == 75
    assert [run["state_type"] for run in server.runs(f"member-{POOL}")] == ["CANCELLED"] * 3

    with workers(server, POOL, tmp_path, 2):
        first = personsearch(*sweep)
    assert first.status == 2, first.stderr
    assert f"submitted to the work pool {POOL}: 3 runs" in first.stderr
    assert "mAP" in first.stderr, "the table fills while members run"
    members = members_of(tmp_path)
    assert [bool(member["error"]) for member in members] == [False, False, True], members
    assert "a batch takes 4,000" in members[2]["error"]
    kinds = {name.partition("/")[0] for name in built_by(tmp_path)}
    assert kinds == {"ingest", "detector", "features", "reid", "detections", "gallery", "evaluation"}
    assert set(built_by(tmp_path).values()) == {1}, "no machine builds what another has built, or builds now"
    assert not open_store(URL).read_tags()


def interrupted(sweep: tuple[object, ...], folder: Path) -> int:
    """The exit status of the command after Ctrl-C, which comes when it has said that no worker is there."""
    said = folder / "interrupted.log"
    running = begin(*sweep, output=said, error=said)
    wait_until(lambda: said.exists() and "no worker of the work pool" in said.read_text(), 120)
    running.send_signal(signal.SIGINT)
    return running.wait(120)


def members_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "tables" / "study.json").read_text())["members"]
    return found
