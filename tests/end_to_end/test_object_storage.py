"""The pipeline on s3://, killed once, resumed, and found by another machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storage.local import LocalStore
from storage.opening import open_store
from storage.remote import RemoteStore
from tests.end_to_end.commands import begin, personsearch
from tests.end_to_end.conftest import TinyRun
from tests.end_to_end.server import wait_until

pytestmark = pytest.mark.slow

URL = "s3://artifacts/tiny"


@pytest.mark.usefixtures("s3")
def test_killed_resumed_and_found_by_another_machine(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONSEARCH_CACHE", str(tmp_path / "one"))
    # A checkpoint after each step and a close look, so that the kill comes long before the last step.
    often = ["--set", "run.checkpoint_seconds=0.001"]
    printed = tmp_path / "printed"
    life = begin("run", tiny_run.config, "--store", URL, *often, output=printed, error=printed)
    try:
        wait_until(lambda: any((tmp_path / "one").rglob(".work/detector/*/**/*.pt")), 240, every=0.02)
    finally:
        life.kill()
        life.wait()
    store = open_store(URL)
    assert {kind for kind, _ in list(store.keys())} == {"ingest"}
    resumed = personsearch("run", tiny_run.config, "--store", URL, json_to=tmp_path / "resumed.json")
    assert resumed.status == 0, resumed.stderr
    assert content(store) == content(open_store(str(tiny_run.store)))
    for path in (tmp_path / "one").rglob("manifest.json"):
        assert "testing" not in path.read_text(), "credentials do not get into manifests"

    monkeypatch.setenv("PERSONSEARCH_CACHE", str(tmp_path / "two"))
    shutil.rmtree(tmp_path / "one")
    elsewhere = personsearch("run", tiny_run.config, "--store", URL, json_to=tmp_path / "elsewhere.json")
    assert elsewhere.status == 0 and set(elsewhere.states.values()) == {"cached"}
    assert elsewhere.path("report").is_relative_to(tmp_path / "two")
    assert isinstance(store, RemoteStore)

    monkeypatch.setenv("PERSONSEARCH_CACHE", str(tmp_path / "three"))
    words = ["--store", URL, "--set", "run.shard_cache_gib=1", "--from", "reid", "--until", "reid"]
    trained = personsearch("run", tiny_run.config, *words, json_to=tmp_path / "trained.json")
    assert trained.status == 0 and trained.states["reid"] == "made", trained.stderr
    assert content(store) == content(open_store(str(tiny_run.store)))
    (machine,) = (tmp_path / "three").iterdir()
    assert not (machine / "features").exists() and any((machine / ".shards").iterdir())
    assert all(open_store(URL).verify(kind, key) == [] for kind, key in list(store.keys()))


def content(store: LocalStore) -> dict[str, str]:
    """The content digest of every artifact."""
    found = [store.peek(kind, key) for kind, key in list(store.keys())]
    return {f"{each.kind}/{each.key}": each.content_digest for each in found if each is not None}
