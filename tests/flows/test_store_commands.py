"""`personsearch store` and `personsearch status` on small stores."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.config.loading import load_config
from flows.errors import ConfigError, Failure
from flows.plan.reach import InUse
from flows.plan.states import resolve, select
from flows.run.making import make_in_process
from flows.run.records import (
    GONE_SECONDS,
    RunRecord,
    heartbeat,
    is_running,
    new_record_path,
    read_records,
    records_folder,
)
from flows.stages.building import build_stages
from personsearch_core.checksums import write_checksums
from storage.errors import StorageError
from storage.listing import Entry
from storage.local import LocalStore
from storage.manifest import Identity
from storage.opening import open_store
from storage.store import Artifact
from storage.tags import set_tag, stays, tags
from tests.end_to_end.tiny import draw_tiny_data, write_tiny_config
from tests.storage.making import make_artifact, name_of


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def chain(store: LocalStore) -> list[Artifact]:
    features = make_artifact(store, "features")
    return [features, make_artifact(store, "reid", sources=(features,))]


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_ls_and_show(store: LocalStore, chain: list[Artifact]) -> None:
    call("store", "tag", "reid/", "good", "--store", store)
    listed = call("store", "ls", "--store", store)
    assert "2 artifacts" in listed and "good" in listed
    as_data = [json.loads(line) for line in call("store", "ls", "--json", "-", "--store", store).splitlines()]
    assert [(each["kind"], each["tags"]) for each in as_data] == [("features", []), ("reid", ["good"])]
    shown = json.loads(call("store", "show", "features/", "--store", store))
    assert shown["used_by"] == [name_of(chain[1])]
    assert shown["recipe"] == {"seed": 0} and "nested/data.bin" in shown["files"]


def test_the_columns_of_ten_thousand_artifacts_line_up(
    store: LocalStore, chain: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [Entry("features", f"{n:032x}", "2026-01-01T00:00:00", 1.5, 7 * n) for n in range(10_000)]
    monkeypatch.setattr("flows.cli.store.list_entries", lambda *_: entries)
    listed = call("store", "ls", "--store", store).splitlines()
    assert len(listed) == 10_002 and listed[0].split() == ["artifact", "made", "size", "seconds", "tags"]
    assert len({line.index("2026-01-01") for line in listed[1:-1]}) == 1


def test_verify_names_what_is_damaged(store: LocalStore, chain: list[Artifact]) -> None:
    assert "2 artifacts verified" in call("store", "verify", "--store", store)
    data = chain[0].path / "nested" / "data.bin"
    stat = data.stat()
    data.write_bytes(b"rowz")
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = CliRunner().invoke(app, ["store", "verify", "--store", str(store)])
    assert isinstance(result.exception, StorageError) and "1 of 2 artifacts" in str(result.exception)
    assert f"features/{chain[0].key[:12]}: nested/data.bin does not match its digest" in result.output
    assert "1 artifact verified" in call("store", "verify", "reid/", "--store", store)
    assert store.find("features", chain[0].key) is None, "the next run does not take it for whole"


def test_verify_names_a_lost_manifest_and_a_damaged_table(store: LocalStore, chain: list[Artifact]) -> None:
    (chain[1].path / "manifest.json").unlink()
    (store.root / "reid" / "notes").mkdir()  # nothing of ours
    study = store.root / ".studies" / "0123456789ab"
    study.mkdir(parents=True)
    (study / "tables.md").write_text("| mAP | 71.0 |")
    write_checksums(study, ["tables.md"])
    (study / "tables.md").write_text("| mAP | 77.0 |")
    result = CliRunner().invoke(app, ["store", "verify", "--store", str(store)])
    assert isinstance(result.exception, StorageError) and "1 of 2 artifacts" in str(result.exception)
    assert f"reid/{chain[1].key[:12]}: manifest.json is missing" in result.output
    assert (
        ".studies/0123456789ab: tables.md does not match its digest in SHA256SUMS; run the study"
        in result.output
    )
    store.set_aside("reid", chain[1].key, "it has no manifest")
    result = CliRunner().invoke(app, ["store", "verify", "--store", str(store)])
    assert isinstance(result.exception, StorageError) and "1 file of studies" in str(result.exception)


def test_invalidate_says_what_depends_on_it(store: LocalStore, chain: list[Artifact]) -> None:
    assert "would delete" in call("store", "invalidate", "features/", "--dry-run", "--store", store)
    assert store.find("features", chain[0].key) is not None
    said = call("store", "invalidate", "features/", "--store", store)
    assert f"reid/{chain[1].key[:12]}" in said
    assert store.find("features", chain[0].key) is None and store.find("reid", chain[1].key) is not None


def test_what_a_running_pipeline_uses_is_not_invalidated(store: LocalStore, chain: list[Artifact]) -> None:
    running = record(store, pid=os.getpid())
    running.stages.append({"stage": "features", "state": "cached", "key": chain[0].key})
    running.write()
    with pytest.raises(StorageError, match="in use by a running pipeline"):
        call("store", "invalidate", "features/", "--store", store)
    with (
        store.making(chain[1].manifest.identity, again=True),
        pytest.raises(StorageError, match="in use by a running pipeline"),
    ):
        call("store", "invalidate", "reid/", "--store", store)
    running.end()
    call("store", "invalidate", "features/", "--store", store)
    assert store.find("features", chain[0].key) is None


def test_what_is_in_use_is_read_again_when_a_record_was_written(
    store: LocalStore, chain: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.plan.reach.SETTLED_NS", 0)
    used = InUse(store)
    assert used() == frozenset()
    running = record(store, pid=os.getpid())
    os.utime(running.path.parent, (1, 1))  # a clock may tick more slowly than records are written
    assert used() == frozenset()
    running.stages.append({"stage": "features", "state": "cached", "key": chain[0].key})
    running.write()
    os.utime(running.path.parent, (2, 2))
    assert used() == {name_of(chain[0])}
    monkeypatch.setattr("flows.plan.reach.in_use", lambda store: pytest.fail("nothing was written since"))
    assert used() == {name_of(chain[0])}


def test_a_recorded_artifact_stays_unless_a_collection_has_its_lock(
    store: LocalStore, chain: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.tags.COLLECTION_SECONDS", 0.1)
    assert stays(store, chain[1].kind, chain[1].key)
    with store.making(chain[1].manifest.identity, again=True):
        assert stays(store, chain[1].kind, chain[1].key), "who makes it again deletes nothing"
    monkeypatch.setattr("storage.tags.COLLECTION_SECONDS", 30)
    deletion = threading.Timer(0.05, store.remove, (chain[1].kind, chain[1].key))
    with store.place.making_now(chain[1].kind, chain[1].key):
        deletion.start()
        assert not stays(store, chain[1].kind, chain[1].key)
        deletion.join()
    assert not stays(store, chain[1].kind, chain[1].key)


def test_gc_says_the_bytes_and_deletes_only_when_told(store: LocalStore, chain: list[Artifact]) -> None:
    with pytest.raises(ConfigError, match="refusing to delete everything"):
        call("store", "gc", "--store", store)
    call("store", "tag", "features/", "kept", "--store", store)
    said = call("store", "gc", "--store", store)
    assert f"reid/{chain[1].key[:12]}" in said and "1 would be deleted" in said
    assert store.find("reid", chain[1].key) is not None
    assert "1 deleted" in call("store", "gc", "--delete", "--store", store)
    assert list(store.keys()) == [("features", chain[0].key)]


def test_on_object_storage_what_is_young_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONSEARCH_CACHE", str(tmp_path))
    url = f"memory://{tmp_path.name}"
    remote = open_store(url)
    made = make_artifact(remote, "features")
    said = call("store", "gc", "--all", "--delete", "--store", url)
    assert "younger than 24 h stay" in said and "0 deleted" in said and "1 artifact kept" in said
    call("store", "gc", "--all", "--delete", "--min-age", "0", "--store", url)
    assert list(remote.keys()) == [] and remote.find("features", made.key) is None


def test_push_and_pull_bring_what_is_behind_an_artifact_and_its_tag(
    store: LocalStore, chain: list[Artifact], tmp_path: Path
) -> None:
    other, third = LocalStore(tmp_path / "other"), LocalStore(tmp_path / "third")
    call("store", "tag", "reid/", "production", "--store", store)
    said = call("store", "push", "production", "--to", other, "--store", store)
    assert "2 artifacts copied" in said and "production now points to reid/" in said
    assert other.find("features", chain[0].key) is not None
    assert tags(other) == {"production": name_of(chain[1])}
    assert "0 artifacts copied" in call("store", "push", "--to", other, "--store", store)
    said = call("store", "pull", "reid/", "--alone", "--from", other, "--store", third)
    assert "1 artifact copied" in said
    assert list(third.keys()) == [("reid", chain[1].key)] and tags(third) == {}
    set_tag(third, "production", name_of(make_artifact(third, "reid", 7)))
    assert "production now points to reid/" in (
        said := call("store", "pull", "production", "--from", other, "--store", third)
    )
    assert "(was reid/" in said and tags(third) == {"production": name_of(chain[1])}


def test_push_takes_tags_and_artifacts_together_and_says_what_it_does_not_know(
    store: LocalStore, chain: list[Artifact], tmp_path: Path
) -> None:
    other, apart = LocalStore(tmp_path / "other"), make_artifact(store, "gallery")
    set_tag(store, "production", name_of(chain[1]))
    said = call("store", "push", "production", "gallery/", "--alone", "--to", other, "--store", store)
    assert "2 artifacts copied" in said and tags(other) == {"production": name_of(chain[1])}
    assert set(other.keys()) == {("reid", chain[1].key), ("gallery", apart.key)}
    with pytest.raises(
        ConfigError, match=r"no artifact 'prod'.*; it is not a tag, either \(tags: production\)"
    ):
        call("store", "push", "prod", "--to", other, "--store", store)
    with pytest.raises(ConfigError, match="both stores are"):
        call("store", "push", "--to", f"{store}/../store", "--store", store)
    (tmp_path / "file").touch()
    for words in (
        ["push", "--to", tmp_path / "file", "--store", store],
        ["pull", "--from", tmp_path / "file"],
    ):
        with pytest.raises(StorageError, match=r"the store .*file is a file: name a folder"):
            call("store", *words, *(["--store", other] if words[0] == "pull" else []))


def test_the_earlier_names_of_push_and_pull_still_work(
    store: LocalStore, chain: list[Artifact], tmp_path: Path
) -> None:
    other, third = LocalStore(tmp_path / "other"), LocalStore(tmp_path / "third")
    said = call("store", "export", "reid/", "--to", other, "--store", store)
    assert "`store export` is now `store push`" in said and "2 artifacts copied" in said
    said = call("store", "import", "--from", other, "--store", third)
    assert "`store import` is now `store pull`" in said and len(list(third.keys())) == 2
    assert not re.search(r"│ (export|import) ", call("store", "--help"))


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store .* does not exist"):
        call("store", "ls", "--store", tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"store .* does not exist"):
        call("status", "--store", tmp_path / "absent")
    with pytest.raises(ConfigError, match="does not name a place"):
        call("store", "ls", "--store", "s3://")


def test_a_config_keeps_what_it_reaches(tmp_path: Path) -> None:
    draw_tiny_data(tmp_path)
    config = write_tiny_config(tmp_path, ".")
    store = LocalStore(tmp_path / "store")
    made = make_first_stage(config, store)
    stale = make_artifact(store, "reid")
    said = call("store", "gc", "--keep", config, "--delete", "--store", store)
    assert "not built yet: ingest:tracks, detector" in said and stale.key[:12] in said
    assert list(store.keys()) == [("ingest", made.key)]
    with pytest.raises(ConfigError, match=r"detector of .* is not built"):
        call("store", "invalidate", "detector", "--config", config)
    with pytest.raises(ConfigError, match="no stage 'nothing'"):
        call("store", "invalidate", "nothing", "--config", config)
    call("store", "invalidate", "ingest:scenes", "--config", config)
    assert list(store.keys()) == []


def make_first_stage(config: Path, store: LocalStore) -> Artifact:
    stages, _ = select(build_stages(load_config(config)), until="ingest")
    planned = resolve(stages[0], store, {}, frozenset())
    return make_in_process(planned, store, {}, on_progress=lambda *a, **k: None)


def test_status_says_what_exists_runs_and_failed(store: LocalStore, chain: list[Artifact]) -> None:
    failed = record(store, pid=os.getpid(), error="reid: row 3 is damaged", finished=True)
    dead = record(store, pid=2**22 + 1)
    mine = record(store, pid=os.getpid())
    identity = Identity(kind="gallery", version=1, recipe={}, inputs={})
    with store.making(identity):
        found: dict[str, Any] = json.loads(call("status", "--json", "-", "--store", store))
        text = call("status", "--store", store)
    assert found["kinds"]["reid"]["artifacts"] == 1
    assert [(each["artifact"], each["pid"]) for each in found["making"]] == [
        (f"gallery/{identity.key}", os.getpid())
    ]
    states = {run["record"]: run["state"] for run in found["runs"]}
    assert states == {str(failed.path): "failed", str(dead.path): "was killed", str(mine.path): "runs"}
    assert "reid: row 3 is damaged" in text and f"log: {store.root / 'a.log'}" in text
    assert [
        area["artifact"] for area in json.loads(call("status", "--json", "-", "--store", store))["unfinished"]
    ]


def test_a_run_of_another_host_or_of_a_reused_process_number(store: LocalStore) -> None:
    elsewhere = record(store, pid=2**22 + 1)
    elsewhere.host = f"not-{socket.gethostname()}"
    assert is_running(elsewhere)
    an_hour_ago = time.time() - GONE_SECONDS - 1
    os.utime(elsewhere.path, (an_hour_ago, an_hour_ago))
    assert not is_running(elsewhere)
    reused = record(store, pid=os.getpid())
    reused.started = "2001-01-01T00:00:00+00:00"
    assert not is_running(reused)


def test_a_running_record_is_touched_and_old_ones_go(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.run.records.BEAT_SECONDS", 0.01)
    monkeypatch.setattr("flows.run.records.KEPT_RECORDS", 1)
    old, running, mine = (RunRecord(records_folder(store.root) / f"{n}.json", "a.yaml") for n in range(3))
    for each in (old, running, mine):
        each.write()
    old.end()
    os.utime(mine.path, (0, 0))
    with heartbeat(mine):
        deadline = time.monotonic() + 10
        while mine.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert mine.path.stat().st_mtime > 0
    assert sorted(records_folder(store.root).iterdir()) == [running.path, mine.path]


def test_a_damaged_record_is_left_out(store: LocalStore) -> None:
    good = record(store, pid=os.getpid())
    (good.path.parent / "0.json").write_text("{")
    (good.path.parent / "1.json").write_text('{"other": 1}')
    assert [each.path for each in read_records(store.root)] == [good.path]


def record(store: LocalStore, *, pid: int, error: str | None = None, finished: bool = False) -> RunRecord:
    made = RunRecord(new_record_path(store.root), "a.yaml", pid=pid)
    if error is not None:
        log = store.root / "a.log"
        log.touch()
        made.stages.append({"stage": "reid", "state": "failed", "key": "k", "log": str(log)})
        made.failure = Failure("refused", error)
    if finished:
        made.end()
    made.write()
    return made


def test_a_run_is_kept_by_its_name_and_garbage_says_whose_it_was(
    store: LocalStore, chain: list[Artifact]
) -> None:
    record = RunRecord(new_record_path(store.root), "configs/mine.yaml")
    record.stages = [{"stage": made.kind, "key": made.key, "state": "cached"} for made in chain]
    record.end()
    said = call("store", "gc", "--all", "--store", store)
    assert said.count(f"last used by {record.name} (mine.yaml)") == len(chain)
    said = call("store", "gc", "--keep", record.name, "--delete", "--store", store)
    assert f"{record.name} keeps 2 artifacts" in said and "0 deleted" in said
    assert record.name in call("status", "--store", store)
    unknown = "20200101T000000-abcdef"
    with pytest.raises(ConfigError, match=f"{store.root.name} has no record of this run; to see the runs: "):
        call("store", "gc", "--keep", unknown, "--store", store)


def test_a_study_keeps_what_its_members_reach(tmp_path: Path) -> None:
    draw_tiny_data(tmp_path)
    config = write_tiny_config(tmp_path, ".")
    store = LocalStore(tmp_path / "store")
    made = make_first_stage(config, store)
    study = tmp_path / "study.yaml"
    study.write_text(
        f"title: Two rates\nstore: store\nconfig: {config.name}\n"
        "members: {low: {set: {reid.lr: 0.0001}}, high: {set: {reid.lr: 0.001}}}\n"
        "tables: {all: {title: All, columns: {mAP: {title: mAP, metric: mAP}}, rows: {low: {}, high: {}}}}\n"
    )
    said = call("store", "gc", "--keep", study, "--delete", "--store", store)
    assert "study.yaml keeps 1 artifact" in said and "0 deleted" in said
    assert list(store.keys()) == [("ingest", made.key)]
