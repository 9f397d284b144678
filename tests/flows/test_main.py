from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.config.loading import load_config
from flows.config.request import RunRequest
from flows.errors import ConfigError
from flows.run.planning import Outcome

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == version("personsearch")


def test_a_sweep_of_nothing_is_refused() -> None:
    result = CliRunner().invoke(app, ["sweep", str(DEMO)])
    assert isinstance(result.exception, ConfigError) and "nothing to vary" in str(result.exception)


@pytest.mark.parametrize("command", [["run", "absent.yaml"], ["plan", "absent.yaml"], ["demo"]])
def test_a_place_for_json_is_looked_at_before_the_work(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, words in (("missing/x.json", "does not exist"), (".", "this is a folder")):
        result = CliRunner().invoke(app, [*command, "--json", place])
        assert isinstance(result.exception, ConfigError) and words in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_dask_is_short_for_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RunRequest] = []
    monkeypatch.setattr(
        "flows.run.planning.plan_config", lambda request: asked.append(request) or Outcome([], 0.0)
    )
    words = ["plan", str(DEMO), "--set", "reid.lr=1", "--dask", "tcp://scheduler:8786"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert load_config(DEMO, asked[0].overrides).run.dask == "tcp://scheduler:8786"


def test_gc_refuses_a_config_that_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    config = tmp_path / "other.yaml"
    config.write_text(
        "store: unused\ndatasets: {d: {adapter: coco, root: root}}\n"
        "detector: {train: [{dataset: d, split: train}]}\n"
    )
    (tmp_path / "root" / "train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "store" / "ingest").mkdir(parents=True)
    words = ["store", "gc", "--store", str(tmp_path / "store"), "--keep", str(config)]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ConfigError), result.output
    assert "keeps nothing of" in str(result.exception)


@pytest.mark.parametrize(("error", "shown"), [("KeyboardInterrupt", False), ("KeyError", True)])
def test_ctrl_c_while_modules_are_loaded_shows_no_traceback(error: str, shown: bool) -> None:
    ended = subprocess.run([sys.executable, "-c", f"import flows.cli; raise {error}"], stderr=subprocess.PIPE)
    assert ended.returncode != 0 and (b"Traceback" in ended.stderr) == shown
