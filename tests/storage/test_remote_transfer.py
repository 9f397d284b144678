"""Artifacts move to and from object storage: no more than is missing, and none that is damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage import parts
from storage.errors import StorageError
from storage.local import LocalStore
from storage.manifest import Identity
from storage.opening import open_store
from storage.receiving import WORTH_LOOKING, Received
from storage.remote import RemoteStore
from storage.transfer import copy_artifact
from tests.storage.making import make_artifact, name_of


def test_artifacts_move_to_and_from_object_storage(
    machines: tuple[RemoteStore, RemoteStore], tmp_path: Path
) -> None:
    one, _ = machines
    local = open_store(str(tmp_path / "local"))
    made = make_artifact(local, "features")
    assert copy_artifact(local, one, name_of(made))
    back = open_store(str(tmp_path / "back"))
    assert copy_artifact(one, back, name_of(made)) and back.verify(made.kind, made.key) == []


def test_only_what_is_missing_moves(
    machines: tuple[RemoteStore, RemoteStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pushed, cut off, pushed again; another artifact with the same shard; pulled by another machine."""
    one, two = machines
    local, back = (open_store(str(tmp_path / name)) for name in ("local", "back"))
    shard = bytes(2 * WORTH_LOOKING)
    first, second = (make_artifact(local, "features", seed, content=shard) for seed in (1, 2))
    put = one.system.put_file

    def cut_off(path: str, target: str) -> None:
        if target.endswith("note.txt"):
            raise ConnectionError("cut off")
        put(path, target)

    monkeypatch.setattr(one.system, "put_file", cut_off)
    monkeypatch.setattr(parts, "AT_ONCE", 1)
    with pytest.raises(ConnectionError):
        copy_artifact(local, one, name_of(first))
    assert list(two.keys()) == [], "nothing is visible"
    monkeypatch.setattr(one.system, "put_file", put)
    assert copy_artifact(local, one, name_of(first)) == Received(len(shard) + 10, 10)
    assert copy_artifact(local, one, name_of(second)) == Received(len(shard) + 10, 10), "copied by the server"
    assert not list(one.place.path_of("features", "x").parent.glob("*")), "nothing is kept on this machine"
    for made in (first, second):
        assert two.verify(made.kind, made.key) == []
        assert copy_artifact(local, one, name_of(made)) is None
    assert copy_artifact(two, back, name_of(first)) == Received(len(shard) + 10, len(shard) + 10)
    assert copy_artifact(two, back, name_of(second)) == Received(len(shard) + 10, 10)
    assert back.verify(second.kind, second.key) == []


def test_damage_on_the_way_is_not_stored(machines: tuple[RemoteStore, RemoteStore], tmp_path: Path) -> None:
    one, two = machines
    local = LocalStore(tmp_path / "local")
    made = make_artifact(local, "features")
    file = made.path / "note.txt"
    stat, content = file.stat(), file.read_bytes()
    file.write_bytes(content[::-1])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(StorageError, match=r"note.txt of features/.* does not match its digest"):
        copy_artifact(local, one, name_of(made))
    assert list(two.keys()) == []
    file.write_bytes(content)
    assert copy_artifact(local, one, name_of(made)) and two.verify(made.kind, made.key) == []
    (part,) = (path for path in one.system.find(f"{one.prefix}/features") if path.endswith("note.txt"))
    one.system.pipe_file(part, b"short")
    assert copy_artifact(local, one, name_of(made)), "a damaged artifact there is replaced"
    assert two.verify(made.kind, made.key) == []


def test_what_an_earlier_artifact_has_is_copied_by_the_server(
    machines: tuple[RemoteStore, RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    earlier = make_artifact(one, "features", content=b"x" * 1000)
    sent: list[str] = []
    put = one.system.put
    monkeypatch.setattr(one.system, "put", lambda files, targets: (sent.extend(files), put(files, targets)))
    identity = Identity(kind="features", version=1, recipe={"seed": 7}, inputs={})
    with one.making(identity) as work:
        (work.path / "same").write_bytes(b"x" * 1000)
        (work.path / "new").write_bytes(b"y" * 1000)
        grown = work.commit("grown", made_by={"rows": {"taken_from": name_of(earlier)}})
    assert [Path(file).name for file in sent] == ["new"]
    found = two.find(grown.kind, grown.key)
    assert found is not None and (found.path / "same").read_bytes() == b"x" * 1000
    assert two.verify(grown.kind, grown.key) == []
