"""An ingest is filed under the content that it was made of, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_catalog import ingest as reading
from data_catalog.errors import CatalogError
from data_catalog.synthetic import Mot17Spec, write_mot17
from flows.cli.datasets import app
from flows.errors import StageError
from flows.plan.catalog import open_catalog
from flows.stages import ingest as ingest_stage
from flows.stages.base import Stage


class Quiet:
    """A reporter that says nothing."""

    def progress(self, done: int, total: int, **metrics: float) -> None:
        return None

    def should_stop(self) -> bool:
        return False


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small synthetic MOT17."""
    spec = Mot17Spec(sequences=1, frames=2, width=96, height=72, people=(2, 3))
    write_mot17(tmp_path / "mot", spec, seed=1)
    return tmp_path / "mot"


def planned(root: Path, store: Path) -> Stage:
    return ingest_stage.root_stage("mot17", "mot17", root, options={}, store=store)


def make(stage: Stage, work: Path) -> Any:
    work.mkdir()
    context = ingest_stage.MAKER.context(stage.recipe, {}, stage.options, work=work, reporter=Quiet())
    return ingest_stage.make(context)


def add_row(root: Path, row: str = "1,99,5,5,9,9,1,1,1\n") -> None:
    truth = next(root.glob("train/*/gt/gt.txt"))
    truth.write_text(truth.read_text() + row)


def pointers(store: Path) -> list[str]:
    return [path.read_text().split()[0] for path in (store / ".cache" / "snapshots").glob("*")]


def test_files_that_change_after_the_plan_are_refused(root: Path, tmp_path: Path) -> None:
    stage = planned(root, tmp_path / "store")
    add_row(root)
    with pytest.raises(StageError, match=r"since the ingest was planned.*same command again"):
        make(stage, tmp_path / "work")
    assert pointers(tmp_path / "store") == []
    again = planned(root, tmp_path / "store")
    make(again, tmp_path / "again")
    assert pointers(tmp_path / "store") == [ingest_stage.identity(again).key]


def test_rows_that_were_damaged_are_told(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(planned(root, tmp_path / "store"), tmp_path / "whole")
    assert "damaged" not in caplog.text
    add_row(root, "1,99,5,5,what,9,1,1,1\n")
    make(planned(root, tmp_path / "store"), tmp_path / "damaged")
    assert "mot17: 1 rows are damaged and left out (`personsearch datasets rejects` lists" in caplog.text


def test_files_that_change_while_they_are_read_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = planned(root, tmp_path / "store")
    ingest = reading.ingest

    def slow(*arguments: Any, **named: Any) -> Any:
        found = ingest(*arguments, **named)
        add_row(root)
        return found

    monkeypatch.setattr(reading, "ingest", slow)
    with pytest.raises(StageError, match="during the ingest"):
        make(stage, tmp_path / "work")
    assert pointers(tmp_path / "store") == []


def test_a_strict_ingest_that_fails_leaves_the_datasets_snapshot(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    arguments = ["ingest", str(root), "--adapter", "mot17", "--store", str(store), "--strict"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    before, kept = pointers(store), open_catalog(store)["mot17"].snapshot.path
    add_row(root, "1,99,5,5,nan,9,1,1,1\n")
    with pytest.raises(CatalogError, match="1 rows are damaged"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert pointers(store) == before
    assert open_catalog(store)["mot17"].snapshot.path == kept
