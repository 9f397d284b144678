"""A sweep on a work pool: a Prefect server, two workers that share an S3 store alone, and a hole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from storage.opening import open_store
from tests.end_to_end.commands import personsearch
from tests.end_to_end.server import Server, bare_server, built_by, workers
from tests.end_to_end.tiny import write_tiny_config

pytestmark = pytest.mark.slow

POOL = "studies"
URL = "s3://artifacts/swept"
FIELDS = ("reid.seed=0..1", "reid.identities_per_batch=3,4000")
"""Of the four members, two ask for more identities than there are."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="artifacts")
    yield
    server.stop()


@pytest.fixture
def server(s3: None, tmp_path: Path) -> Iterator[Server]:
    with bare_server(tmp_path) as server:
        yield server


def test_each_shared_artifact_is_built_once_and_a_failed_member_is_a_hole(
    server: Server, tmp_path: Path, tiny_data: Path
) -> None:
    config = write_tiny_config(tmp_path, tiny_data)
    words = [word for field in FIELDS for word in ("--set", field)]
    sweep = ("sweep", config, "--store", URL, "--on", POOL, "--out", tmp_path / "tables", *words)
    own = os.environ | server.environment | {"PERSONSEARCH_CACHE": str(tmp_path / "own")}
    absent = personsearch(*sweep, environment=own)
    assert (absent.status, "the server has no such work pool" in absent.stderr) == (2, True), absent.stderr
    with workers(server, POOL, tmp_path, 2):
        first = personsearch(*sweep, environment=own)
        assert first.status == 2, first.stderr
        again = personsearch(*sweep, environment=own)
    members = json.loads((tmp_path / "tables" / "study.json").read_text())["members"]
    failed = [member for member in members if member["error"]]
    assert len(members) == 4 and [member["settings"]["reid.identities_per_batch"] for member in failed] == [
        "4000",
        "4000",
    ]
    assert all("4000" in member["error"] for member in failed), failed
    kinds = {name.partition("/")[0] for name in built_by(tmp_path)}
    assert kinds == {"ingest", "detector", "features", "reid", "detections", "gallery", "evaluation"}
    assert set(built_by(tmp_path).values()) == {1}, "no machine builds what another has built, or builds now"
    assert not open_store(URL).read_tags()
    assert "submitted" in first.stderr and "submitted" not in again.stderr
    assert "built nothing" in again.stdout
