"""Leases on object storage, between machines that share nothing else."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from storage import leases
from storage.gc import collect, find_garbage
from storage.manifest import Identity
from storage.remote import RemoteStore
from tests.storage.making import make_artifact

IDENTITY = Identity(kind="reid", version=1, recipe={"seed": 0}, inputs={})


@pytest.fixture
def url(s3: str, tmp_path: Path) -> str:
    return f"{s3}/{tmp_path.name}"


def held(url: str, folder: Path) -> list[str]:
    """The leases that the store has, by kind, key and number."""
    store = RemoteStore(url, folder / "looking")
    return sorted(path.partition(".leases/")[2] for path in store._bucket.listed(".leases"))


def test_of_many_machines_one_builds_and_all_others_take_its_artifact(url: str, tmp_path: Path) -> None:
    built: list[int] = []
    artifacts: list[str] = []

    def build(machine: int) -> None:
        store = RemoteStore(url, tmp_path / str(machine))
        with store.making(IDENTITY) as work:
            if work.made is None:
                built.append(machine)
                (work.path / "data.bin").write_text("the same")
                time.sleep(0.3)  # the others come meanwhile
                work.commit("digest")
            assert work.made is not None
            artifacts.append((work.made.path / "data.bin").read_text())

    threads = [threading.Thread(target=build, args=(machine,)) for machine in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and artifacts == ["the same"] * 3
    assert held(url, tmp_path) == [], "every lease was released"


def test_machines_that_have_waited_take_no_lease(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    put = leases.Leases._put

    def counted(self: leases.Leases, path: str, token: str) -> bool:
        taken.append(path)
        return put(self, path, token)

    monkeypatch.setattr(leases.Leases, "_put", counted)
    waits = threading.Event()

    def second() -> None:
        with RemoteStore(url, tmp_path / "two").making(IDENTITY) as work:
            assert work.made is not None
            waits.set()

    with RemoteStore(url, tmp_path / "one").making(IDENTITY) as work:
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(1.0)
        (work.path / "data.bin").write_bytes(b"rows")
        work.commit("digest")
    waiting.join()
    assert waits.is_set() and len(taken) == 1, "the first machine's alone"


def dead_lease(url: str, folder: Path, number: int = 0, **said: object) -> None:
    """A lease of a machine that was switched off."""
    store = RemoteStore(url, folder / "dead")
    body = {"host": "far", "pid": 7, "place": "far:/elsewhere", "token": "t", "beat": 3} | said
    path = f"{store.prefix}/.leases/reid/{IDENTITY.key}/{number}"
    store.system.pipe_file(path, json.dumps(body).encode())


def test_the_lease_of_a_machine_that_died_is_waited_for_and_taken_over(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.8)
    dead_lease(url, tmp_path)
    started = time.monotonic()
    make_artifact(RemoteStore(url, tmp_path / "one"), "reid")
    assert time.monotonic() - started > 0.8
    assert "waiting for process 7 of far, which is building reid/" in caplog.text
    assert "taking over the lease" in caplog.text
    assert held(url, tmp_path) == []


def test_a_lease_that_is_renewed_does_not_expire(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.6)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.15)
    entered: list[str] = []

    def second() -> None:
        with RemoteStore(url, tmp_path / "two").making(IDENTITY) as work:
            entered.append("made" if work.made else "nothing")

    with RemoteStore(url, tmp_path / "one").making(IDENTITY) as work:
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(1.5)
        assert not entered, "more than twice the time after which a dead one is taken over"
        (work.path / "data.bin").write_bytes(b"rows")
        work.commit("digest")
    waiting.join()
    assert entered == ["made"]


def test_of_two_that_take_over_a_dead_lease_one_waits_for_the_other(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.5)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)
    dead_lease(url, tmp_path, number=9)
    dead_lease(url, tmp_path, number=10)
    inside: list[int] = []
    most: list[int] = []

    def build(machine: int) -> None:
        with RemoteStore(url, tmp_path / str(machine)).making(IDENTITY, again=True) as work:
            inside.append(machine)
            most.append(len(inside))
            (work.path / "data.bin").write_bytes(b"rows")
            time.sleep(0.3)
            work.commit("digest")
            inside.remove(machine)

    threads = [threading.Thread(target=build, args=(machine,)) for machine in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1] and held(url, tmp_path) == []


def test_a_machine_does_not_wait_for_its_own_dead_process(url: str, tmp_path: Path) -> None:
    store = RemoteStore(url, tmp_path / "one")
    dead_lease(url, tmp_path, place=store._leases._place)
    started = time.monotonic()
    make_artifact(store, "reid")
    assert time.monotonic() - started < 5 and held(url, tmp_path) == []


def test_a_damaged_lease_expires_like_any_other(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.3)
    store = RemoteStore(url, tmp_path / "one")
    store.system.pipe_file(f"{store.prefix}/.leases/reid/{IDENTITY.key}/3", b"\xff{")
    make_artifact(store, "reid")
    assert held(url, tmp_path) == []


def test_leases_that_stay_behind_are_collected_and_young_ones_are_not(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RemoteStore(url, tmp_path / "one")
    make_artifact(store, "reid")
    dead_lease(url, tmp_path)
    kept = [f"reid/{IDENTITY.key}"]
    assert not find_garbage(store, kept).objects
    monkeypatch.setattr("storage.remote._LEFT", timedelta(seconds=-5))
    monkeypatch.setattr("storage.remote._latest", lambda name, before: before + timedelta(seconds=5))
    garbage = find_garbage(store, kept)
    assert [each.name for each in garbage.objects] == [f".leases/reid/{IDENTITY.key}"]
    collect(store, garbage)
    assert held(url, tmp_path) == [] and store.find("reid", IDENTITY.key) is not None
