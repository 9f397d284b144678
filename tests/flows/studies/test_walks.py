"""How far members are: a store is asked little, and what is taken from it meanwhile is built again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.studies import walks
from storage.local import LocalStore
from storage.tags import stays
from tests.flows.studies.sweeps import MakeHere, build, count_looks, count_record_writes, study_of

pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture
def built(config: Path, tmp_path: Path) -> Path:
    """A store with all that one member needs."""
    build(study_of(config), MakeHere(), tmp_path / "store")
    return tmp_path / "store"


def test_the_store_is_asked_before_and_after_an_artifact_is_built(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, writes = count_looks(monkeypatch), count_record_writes(monkeypatch)
    study = study_of(config, "reid.seed=0..5")
    outcome = build(study, make := MakeHere(fail_seed=5), tmp_path / "store", slots=1)
    assert sum(member.failure is None for member in outcome.members) == 5
    assert (make.made["detector"], make.made["reid"]) == (1, 5)
    assert max(looks.values()) == 2
    looks.clear()
    writes.clear()
    build(study_of(config, "reid.seed=0..4"), again := MakeHere(), tmp_path / "store")
    assert not again.made
    assert max(looks.values()) == 1
    assert len(writes) == 2  # with all that it uses, and at its end


def test_what_a_collection_takes_before_it_is_on_record_is_built_again(
    config: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def collected(store: LocalStore, kind: str, key: str) -> bool:
        if kind == "reid" and not taken:
            store.remove(kind, key)
            taken.append(key)
        return stays(store, kind, key)

    monkeypatch.setattr(walks, "stays", collected)
    outcome = build(study_of(config), make := MakeHere(), built)
    assert taken and make.made == {"reid": 1}
    assert outcome.members[0].failure is None and "evaluation" in outcome.members[0].artifacts


def test_a_member_does_not_fail_because_its_snapshot_was_collected_meanwhile(
    config: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, taken = LocalStore(built), list[str]()
    check_ready = walks.check_ready

    def collected(*args: Any) -> None:
        if not taken:
            for kind, key in list(store.keys("ingest")):
                store.remove(kind, key)
                taken.append(key)
        check_ready(*args)

    monkeypatch.setattr(walks, "check_ready", collected)
    outcome = build(study_of(config), make := MakeHere(), built)
    assert taken and make.made == {"ingest": 1}
    assert outcome.members[0].failure is None and "evaluation" in outcome.members[0].artifacts
