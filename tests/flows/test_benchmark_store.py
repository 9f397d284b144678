from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.store import store

OTHERS = {"zarr-python .oindex", "tensorstore", "h5py", "LMDB"}


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(store)
    return app


def test_every_figure_is_measured_in_one_run(app: typer.Typer, on_disk: Path):
    options = ["--rows", "600", "--record-shape", "16,6,4", "--rounds", "2", "--folder", str(on_disk)]
    result = CliRunner().invoke(app, [*options, "--json", str(on_disk / "figures.json")])
    assert result.exit_code == 0, result.output
    body = json.loads((on_disk / "figures.json").read_text())
    assert (body["rows"], body["record_shape"]) == (600, [16, 6, 4])
    names = {(one["group"], one["name"]) for one in body["figures"]}
    warm = {("warm", f"store, tier disk, first read {how}") for how in ("in order", "at random")}
    assert warm | {("cold", "store, tier disk"), ("open", "10^6 rows")} <= names
    assert {name for group, name in names if group == "warm"} >= OTHERS
    promised = {one["group"] for one in body["figures"] if one["holds"] is not None}
    assert promised == {"write", "warm", "cold", "loader", "remote", "open"}
    assert all(one["seconds"] > 0 for one in body["figures"])
    assert [file.name for file in on_disk.iterdir()] == ["figures.json"]


@pytest.mark.parametrize("shape", ["a,b", "3,0", ""])
def test_a_shape_that_is_none(app: typer.Typer, shape: str):
    result = CliRunner().invoke(app, ["--record-shape", shape])
    assert result.exit_code == 2
    assert "is not a list of whole numbers" in result.output
