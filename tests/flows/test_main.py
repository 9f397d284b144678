from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from typer.testing import CliRunner

from flows.cli.main import app
from flows.errors import ConfigError

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == version("personsearch")


def test_a_sweep_of_nothing_is_refused() -> None:
    result = CliRunner().invoke(app, ["sweep", str(DEMO)])
    assert isinstance(result.exception, ConfigError) and "nothing to vary" in str(result.exception)


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
