"""Fixtures of whole runs."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.locks import exclusive
from tests.conftest import shared_folder
from tests.end_to_end.commands import Outcome, personsearch
from tests.end_to_end.tiny import draw_tiny_data, write_tiny_config


@dataclass(frozen=True)
class TinyRun:
    """A finished run; data, store and config lie in one folder."""

    config: Path
    outcome: Outcome

    @property
    def folder(self) -> Path:
        return self.config.parent

    @property
    def store(self) -> Path:
        return self.folder / "store"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn datasets, shared by all tests: copy them before changing anything."""
    folder = tmp_path_factory.mktemp("tiny_data")
    draw_tiny_data(folder)
    return folder


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_data: Path) -> Path:
    """A config of the whole method with an empty store next to it."""
    return write_tiny_config(tmp_path, tiny_data)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> TinyRun:
    """A finished run of the tiny pipeline: read it, or copy its folder before changing anything.

    One for all workers of the session: whichever asks first makes it, and others wait.
    """
    folder = shared_folder(tmp_path_factory) / "tiny"
    kept = folder / "tiny_run.pickle"
    with exclusive(folder.with_suffix(".lock"), what="the tiny run"):
        if not kept.exists():
            folder.mkdir(exist_ok=True)
            draw_tiny_data(folder)
            config = write_tiny_config(folder, ".")
            outcome = personsearch("run", config, json_to=folder / "outcome.json")
            assert outcome.status == 0, outcome.stderr
            kept.write_bytes(pickle.dumps(TinyRun(config, outcome)))
    run: TinyRun = pickle.loads(kept.read_bytes())
    return run


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local S3 server with the bucket `artifacts`, which the environment names."""
    import boto3
    from moto.server import ThreadedMotoServer

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
