"""Artifacts appear whole or not at all, and what is damaged is noticed."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from storage import local, trust, work_area
from storage.digests import digest_file
from storage.errors import StorageError
from storage.local import LocalStore
from storage.manifest import FILE_NAME, Identity
from storage.store import Artifact, Inspection
from storage.trust import Digested, stat_key

IDENTITY = Identity(kind="features", version=1, recipe={"roi": [16, 8]}, inputs={"boxes": "aa"})


def make(store: LocalStore, identity: Identity = IDENTITY, content: bytes = b"rows") -> Artifact:
    with store.making(identity) as work:
        if work.made:
            return work.made
        (work.path / "nested").mkdir()
        (work.path / "nested" / "data.bin").write_bytes(content)
        return work.commit("content", metrics={"rows": 4})


def test_a_made_artifact_is_found_and_its_key_follows_from_its_identity(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.find("features", IDENTITY.key) is None
    made = make(store)
    found = store.find("features", IDENTITY.key)
    assert found is not None and found.manifest == made.manifest
    assert found.manifest.metrics == {"rows": 4}
    assert list(store.keys()) == [("features", IDENTITY.key)]
    changed = IDENTITY.model_copy(update={"recipe": {"roi": [16, 9]}})
    assert changed.key != IDENTITY.key and store.find("features", changed.key) is None


def test_without_commit_nothing_is_visible_and_the_work_stays_for_a_resume(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(RuntimeError), store.making(IDENTITY) as work:
        (work.path / "half").write_text("half")
        raise RuntimeError
    assert store.find("features", IDENTITY.key) is None
    assert list(store.place.work_areas()) == [("features", IDENTITY.key)]
    with store.making(IDENTITY) as work:
        assert (work.path / "half").read_text() == "half"
        work.commit("content")
    assert list(store.place.work_areas()) == []


def test_scratch_is_there_for_a_resume_and_no_part_of_the_artifact(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(RuntimeError), store.making(IDENTITY) as work:
        (work.path / "checkpoints").mkdir()
        (work.path / "checkpoints" / "step-1.pt").write_bytes(b"state")
        (work.path / "rows.jsonl").write_text("rows")
        raise RuntimeError
    with store.making(IDENTITY) as work:
        assert (work.path / "checkpoints" / "step-1.pt").read_bytes() == b"state"
        (work.path / "data.bin").write_bytes(b"data")
        made = work.commit("content", scratch=("checkpoints", "rows.jsonl", "never_written"))
    assert list(made.manifest.files) == ["data.bin"]
    assert {path.name for path in made.path.iterdir()} == {"data.bin", FILE_NAME}
    assert store.find("features", IDENTITY.key) is not None


def test_a_commit_that_fails_keeps_the_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)

    def no_rename(self: Path, target: Path) -> Path:
        raise OSError("killed here")

    with store.making(IDENTITY) as work:
        (work.path / "state").write_bytes(b"state")
        monkeypatch.setattr(Path, "rename", no_rename)
        with pytest.raises(OSError, match="killed here"):
            work.commit("content", scratch=("state",))
        assert (work.path / "state").read_bytes() == b"state"


def test_what_was_made_again_after_the_look_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the lock, another process may put a whole artifact in the damaged one's place."""
    store = LocalStore(tmp_path)
    data = make(store).path / "nested" / "data.bin"
    data.write_bytes(b"row")
    making_now = store.place.making_now

    def lock_late(kind: str, key: str) -> AbstractContextManager[bool]:
        LocalStore(tmp_path).set_aside(kind, key, "another process found it first")
        make(LocalStore(tmp_path))
        return making_now(kind, key)

    monkeypatch.setattr(store.place, "making_now", lock_late)
    found = store.find("features", IDENTITY.key)
    assert found is not None and data.read_bytes() == b"rows"
    assert len(list((tmp_path / ".damaged").iterdir())) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest", "no_manifest"])
def test_damage_is_noticed_set_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    store = LocalStore(tmp_path)
    data = make(store).path / "nested" / "data.bin"
    manifest = data.parents[1] / FILE_NAME
    if damage == "flip":
        data.write_bytes(b"rowz")
    elif damage == "truncate":
        data.write_bytes(b"row")
    elif damage == "delete":
        data.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text().replace('"rows": 4', '"rows": 5'))
    else:
        manifest.unlink()
    if damage != "no_manifest":
        assert store.verify("features", IDENTITY.key)
    assert store.find("features", IDENTITY.key) is None
    assert len(list((tmp_path / ".damaged").iterdir())) == 1
    make(store)
    assert store.find("features", IDENTITY.key) is not None


def test_a_touched_file_is_digested_again_and_then_trusted(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    data = make(store).path / "nested" / "data.bin"
    os.utime(data)
    assert store.find("features", IDENTITY.key) is not None
    assert store.verify("features", IDENTITY.key) == []


def test_a_flip_that_hides_behind_an_equal_stat_is_found_by_verify(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    data = make(store).path / "nested" / "data.bin"
    before = data.stat()
    with data.open("r+b") as file:
        file.write(b"x")
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find("features", IDENTITY.key) is not None
    assert store.verify("features", IDENTITY.key) == ["nested/data.bin does not match its digest"]


def test_a_change_while_it_is_digested_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    data = make(store).path / "nested" / "data.bin"
    os.utime(data)

    def digest_and_change(path: Path) -> str:
        digest = digest_file(path)
        path.write_bytes(b"rowz")
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(trust, "digest_file", digest_and_change)
        assert store.find("features", IDENTITY.key) is not None
    assert store.find("features", IDENTITY.key) is None


def test_a_change_between_commit_and_publication_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)

    def digest_and_change(path: Path) -> str:
        digest = digest_file(path)
        path.write_bytes(b"rowz")
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(work_area, "digest_file", digest_and_change)
        make(store)
    assert store.find("features", IDENTITY.key) is None


def test_every_file_and_directory_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(local, "flush", flushed.append)
    store = LocalStore(tmp_path)
    with store.making(IDENTITY) as work:
        (work.path / "a" / "b").mkdir(parents=True)
        (work.path / "a" / "b" / "data").write_bytes(b"")
        work.commit("content")
    expected = {work.path, work.path / "a", work.path / "a" / "b", work.path / "a" / "b" / "data"}
    assert expected <= set(flushed)


def test_the_memory_of_children_counts(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", f"bytearray({400 << 20})"], check=True)
    peak = make(LocalStore(tmp_path)).manifest.peak_memory_bytes
    assert peak is not None and peak > 400 << 20


@pytest.mark.parametrize("name", ["", ".", "..", ".work", "a/b", "/etc", "a\0b"])
def test_no_name_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    store = LocalStore(tmp_path / "store")
    for kind, key in ((name, "k"), ("features", name)):
        place = store.place
        for ask in (store.find, place.path_of, place.work_path_of, place.log_path_of, place.holder):
            with pytest.raises(StorageError, match="cannot be the kind or the key"):
                ask(kind, key)
    assert not (tmp_path / "store").exists()


def test_a_reader_between_the_look_and_the_rename_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer publishes between the reader's look for the manifest and its look for the folder."""
    store, read = LocalStore(tmp_path), local.read_regular

    def read_then_publish(path: Path) -> bytes:
        try:
            return read(path)
        except FileNotFoundError:
            with monkeypatch.context() as patch:
                patch.setattr(local, "read_regular", read)
                make(LocalStore(tmp_path))
            raise

    with monkeypatch.context() as patch:
        patch.setattr(local, "read_regular", read_then_publish)
        assert store.find("features", IDENTITY.key) is not None
    assert not (tmp_path / ".damaged").exists()


def test_what_is_damaged_and_made_again_now_is_left_to_its_maker(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    data = make(store).path / "nested" / "data.bin"
    data.write_bytes(b"rowz")
    with store.making(IDENTITY, again=True) as work:
        assert LocalStore(tmp_path).find("features", IDENTITY.key) is None
        assert data.exists() and not (tmp_path / ".damaged").exists()
        (work.path / "data.bin").write_bytes(b"rows")
        work.commit("content")
    assert store.find("features", IDENTITY.key) is not None


def test_a_look_moves_nothing_and_says_what_is_wrong(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.inspect("features", IDENTITY.key) == Inspection()
    made = make(store)
    assert store.inspect("features", IDENTITY.key).artifact == made
    data = made.path / "nested" / "data.bin"
    data.write_bytes(b"rowz")
    for _ in range(2):  # what is damaged is not remembered as verified
        assert store.inspect("features", IDENTITY.key).problem == "nested/data.bin does not match its digest"
    assert data.exists() and not (tmp_path / ".damaged").exists()


def test_a_kill_between_the_renames_of_a_replacement_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    made = make(store)
    rename = Path.rename

    def no_work_area(self: Path, target: Path) -> Path:
        if ".work" in self.parts:
            raise OSError("killed here")
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed here"):
        patch.setattr(Path, "rename", no_work_area)
        with store.making(IDENTITY, again=True) as work:
            work.commit("content")
    assert not made.path.exists()
    assert LocalStore(tmp_path).find("features", IDENTITY.key) == made


def test_readers_see_it_all_the_time_while_it_is_replaced(tmp_path: Path) -> None:
    store, stop, seen = LocalStore(tmp_path), threading.Event(), []
    make(store)

    def read() -> None:
        while not stop.is_set():
            seen.append(LocalStore(tmp_path).find("features", IDENTITY.key) is not None)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(40):
        with store.making(IDENTITY, again=True) as work:
            (work.path / "data.bin").write_bytes(b"x" * (1000 + turn))
            work.commit("content")
    stop.set()
    for reader in readers:
        reader.join()
    assert all(seen) and len(seen) > 40 and not (tmp_path / ".damaged").exists()
    assert not list((tmp_path / ".replaced").iterdir())


def _make_slowly(root: str, started: multiprocessing.synchronize.Event, log: str) -> None:
    with LocalStore(Path(root)).making(IDENTITY) as work:
        started.set()
        if work.made is None:
            time.sleep(0.5)
            with Path(log).open("a") as file:
                file.write("made\n")
            work.commit("content")


def test_a_second_process_waits_and_finds_it_made(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    log = tmp_path / "log"
    arguments = (str(tmp_path / "store"), started, str(log))
    processes = [context.Process(target=_make_slowly, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "made\n"
    assert not list((tmp_path / "store" / ".locks" / "features").iterdir())


def test_kill_9_of_the_writer_frees_the_lock(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from storage.local import LocalStore
        from storage.manifest import Identity
        identity = Identity.model_validate_json({IDENTITY.model_dump_json()!r})
        with LocalStore(Path({str(tmp_path)!r})).making(identity) as work:
            (work.path / "half").write_text("half")
            print("holding", flush=True)
            time.sleep(60)
    """)
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "holding\n"
    store = LocalStore(tmp_path)
    assert store.place.holder("features", IDENTITY.key) == writer.pid
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert store.place.holder("features", IDENTITY.key) is None
    with store.making(IDENTITY) as work:
        assert (work.path / "half").exists()


def test_what_was_digested_as_it_was_written_is_read_again_only_if_it_has_changed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with store.making(IDENTITY) as work:
        for name in ("large", "changed", "small"):
            (work.path / name).write_bytes(b"as the disk has it")
        intended = hashlib.sha256(b"as it was written").hexdigest()
        digests = {
            name: Digested(intended, stat_key((work.path / name).stat())) for name in ("large", "changed")
        }
        os.utime(work.path / "changed", (1, 1))
        made = work.commit("digest", digests=digests)
    files = made.manifest.files
    assert files["large"].sha256 == intended
    found = hashlib.sha256(b"as the disk has it").hexdigest()
    assert files["changed"].sha256 == files["small"].sha256 == found
    assert store.verify("features", made.key) == ["large does not match its digest"]
