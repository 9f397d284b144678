"""What must last is on the disk before its writer goes on: its bytes, its name, its folders' names."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import durable, local
from storage.feature_store import create_features
from storage.local import LocalStore
from storage.manifest import Identity
from storage.tags import remove_tag, set_tag
from tests.storage.making import make_artifact, name_of

Lasts = Callable[[Path], bool]


@pytest.fixture
def lasts(monkeypatch: pytest.MonkeyPatch) -> Lasts:
    """Whether a file or folder is there after a power cut, by the calls made since the fixture began."""
    flushed: set[int] = set()
    named: dict[Path, dict[str, int]] = {}
    early: set[int] = set()
    fsync = os.fsync

    def flushing(descriptor: int) -> None:
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            named[path] = {each.name: each.stat().st_ino for each in path.iterdir()}

    def renaming(name: str) -> None:
        call = getattr(os, name)

        def recorded(source: Path, target: Path) -> None:
            if source.is_file() and source.stat().st_ino not in flushed:
                early.add(source.stat().st_ino)
            call(source, target)

        monkeypatch.setattr(os, name, recorded)

    monkeypatch.setattr(os, "fsync", flushing)
    renaming("replace")
    renaming("rename")

    def check(path: Path) -> bool:
        inode = path.stat().st_ino
        has_content = path.is_dir() or (inode in flushed and inode not in early)
        return has_content and named.get(path.parent, {}).get(path.name) == inode

    return check


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    durable.write(file, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        durable.write(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    durable.write(file, b"new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


def test_a_file_lasts_with_its_folders(tmp_path: Path, lasts: Lasts) -> None:
    folder = tmp_path / "a" / "b"
    durable.make_folder(folder)
    durable.write(folder / "file", "text")
    assert all(lasts(path) for path in (folder / "file", folder, folder.parent))
    durable.write(folder / "memo", "text", lasting=False)
    assert not lasts(folder / "memo")


def test_unfinished_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    mine = tmp_path / durable.partial_name("file")
    dead = tmp_path / mine.name.replace(f".{os.getpid()}.", ".4194305.")
    other = tmp_path / ".file.another-host.4194305.0123abcd.partial"
    for file in (mine, dead, other):
        file.touch()
    durable.remove_abandoned(tmp_path)
    assert {*tmp_path.iterdir()} == {mine, other}


def test_metadata_of_features_lasts(tmp_path: Path, lasts: Lasts) -> None:
    """A resume after a power cut found `zarr.json` with 0 bytes."""
    create_features(tmp_path / "store", 10, (2,)).close()
    assert lasts(tmp_path / "store" / "zarr.json")
    assert lasts(tmp_path / "store" / "features" / "zarr.json")


def test_a_tag_lasts(tmp_path: Path, lasts: Lasts) -> None:
    store = LocalStore(tmp_path / "store")
    set_tag(store, "release", name_of(make_artifact(store, "features")))
    assert lasts(store.root / ".tags" / "release") and lasts(store.root / ".tags")
    remove_tag(store, "release")
    assert not (store.root / ".tags" / "release").exists()


def test_an_artifact_of_a_new_kind_lasts(tmp_path: Path, lasts: Lasts) -> None:
    store = LocalStore(tmp_path / "store")
    made = make_artifact(store, "features")
    assert all(lasts(path) for path in (made.path, made.path.parent, store.root))


def test_what_is_replaced_waits_where_it_lasts(tmp_path: Path, lasts: Lasts) -> None:
    store = LocalStore(tmp_path / "store")
    identity = make_artifact(store, "ingest").manifest.identity
    with store.making(identity, again=True) as work:
        (work.path / "note.txt").write_text("again")
        work.commit("again")
    assert lasts(store.root / ".replaced")


def test_an_artifact_has_moved_for_good_before_its_files_are_touched(
    tmp_path: Path, lasts: Lasts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may bring it back without its manifest, or without some of its files."""
    store = LocalStore(tmp_path / "store")
    artifact = make_artifact(store, "ingest")
    gone: list[bool] = []
    flush = durable.flush

    def watched(path: Path) -> None:
        flush(path)
        if path == artifact.path.parent:
            gone.append(not artifact.path.exists())

    monkeypatch.setattr(durable, "flush", watched)
    monkeypatch.setattr(local, "flush", watched)
    monkeypatch.setattr(local, "drop_manifest", lambda work: gone.append(lasts(work)))
    store.reopen(artifact.kind, artifact.key)
    assert gone == [True, True]
    gone.clear()
    artifact = make_artifact(store, "ingest", 1)
    gone.clear()
    store.take_away(artifact.kind, artifact.key)
    assert gone == [True]


def test_a_work_area_lasts(tmp_path: Path, lasts: Lasts) -> None:
    store = LocalStore(tmp_path / "store")
    with store.making(Identity(kind="ingest", version=1, recipe={}, inputs={})) as work:
        assert all(lasts(path) for path in (work.path, work.path.parent, work.path.parent.parent))


def test_a_copy_has_the_digest_of_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_BLOCK", 4)
    target = tmp_path / "a" / "b" / "copy"
    expected = hashlib.sha256(b"0123456789").hexdigest()
    assert durable.copy_digested(io.BytesIO(b"0123456789"), target) == expected
    assert target.read_bytes() == b"0123456789"
    assert durable.copy_digested(io.BytesIO(b"0123456789"), None) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
