"""The list of a store: names go in, hashes stay, and every ingest of the dataset honours them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from data_catalog.forgotten import FORGOTTEN, NO_ONE
from data_catalog.synthetic import Mot17Spec, write_mot17
from flows.cli.datasets import app
from flows.errors import ConfigError, StageError
from flows.plan.catalog import open_catalog
from flows.plan.forgotten_list import FILE, ForgottenList
from flows.stages import ingest
from flows.stages.base import Stage
from tests.flows.report.invented import Silent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_mot17(
        tmp_path / "mot", Mot17Spec(sequences=1, frames=2, width=96, height=72, people=(2, 3)), seed=1
    )
    return tmp_path / "mot"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def planned(root: Path, store: Path, name: str = "mot") -> Stage:
    return ingest.root_stage(name, "mot17", root, options={}, store=store)


def key(root: Path, store: Path, name: str = "mot") -> str:
    return ingest.identity(planned(root, store, name)).key


def test_it_holds_no_name_and_knows_them_all(store: Path) -> None:
    kept = ForgottenList(store)
    assert kept.of("prw", None) is NO_ONE
    kept.add("prw", people=["person-seven"], images=(), root=None)
    kept.add("prw", people=["person-eight"], images=["c1s1_000001.jpg"], root=None)
    found = ForgottenList(store).of("prw", None)
    assert found.is_person("person-seven") and found.is_person("person-eight")
    assert not found.is_person("person-nine") and not found.is_person("c1s1_000001.jpg")
    assert found.is_image("c1s1_000001.jpg") and not found.is_image("person-seven")
    content = (store / FILE).read_text()
    assert not any(name in content for name in ("person-", "c1s1"))
    other = ForgottenList(store / "other")
    other.add("prw", people=["person-seven"], images=(), root=None)
    assert not set(other.of("prw", None).people) & set(found.people)  # another salt


def test_only_the_dataset_that_it_names_gets_another_key(root: Path, store: Path) -> None:
    before, other = key(root, store), key(root, store, "other")
    kept = ForgottenList(store)
    kept.add("prw", people=["1"], images=(), root=None)
    assert key(root, store) == before and "forgotten" not in planned(root, store).recipe
    kept.add("mot", people=["1"], images=(), root=None)
    assert key(root, store) != before
    assert key(root, store, "other") == other


def test_a_root_is_known_under_any_name(root: Path, store: Path) -> None:
    ForgottenList(store).add("mot", people=["1"], images=(), root=root)
    renamed = ForgottenList(store).of("renamed", root)
    assert renamed.is_person("1")
    assert ForgottenList(store).of("renamed", root.parent) is NO_ONE


def test_the_command_ingests_without_them(root: Path, store: Path) -> None:
    arguments = ["ingest", str(root), "--adapter", "mot17", "--name", "mot", "--store", str(store)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    boxes = open_catalog(store)["mot"].snapshot.table("boxes")
    person = boxes["person_id"].drop_null()[0].as_py()
    count = pc.sum(pc.equal(boxes["person_id"], person)).as_py()
    ForgottenList(store).add("mot", people=[person], images=(), root=None)
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    boxes = open_catalog(store)["mot"].snapshot.table("boxes")
    assert person not in boxes["person_id"].to_pylist()
    assert boxes["ignore_reason"].to_pylist().count(FORGOTTEN) == count


def test_a_list_that_changes_after_the_plan_is_noticed(root: Path, store: Path, tmp_path: Path) -> None:
    stage = planned(root, store)
    ForgottenList(store).add("mot", people=["1"], images=(), root=None)
    (tmp_path / "work").mkdir()
    context = ingest.MAKER.context(stage.recipe, {}, stage.options, work=tmp_path / "work", reporter=Silent())
    with pytest.raises(
        StageError, match=r"forgotten since the ingest was planned: run the same command again"
    ):
        ingest.make(context)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"format": 2, "salt": "00"}', b'{"salt": "00", "datasets": {"mot": {"people": ["anna"]}}}'],
)
def test_a_damaged_list_stops_every_ingest(root: Path, store: Path, content: bytes) -> None:
    store.mkdir()
    (store / FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"is damaged: .*restore it from a backup"):
        planned(root, store)
