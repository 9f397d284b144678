"""`personsearch datasets check` on one dataset and on several at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_catalog.synthetic import PrwSpec, WiderPedestrianSpec, write_prw, write_wider_pedestrian
from flows.cli.datasets import app
from flows.errors import ConfigError


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """PRW and WIDER Pedestrian; an image of PRW's test is in WIDER's train, under another name."""
    prw, wider = tmp_path / "prw", tmp_path / "wider"
    write_prw(prw, PrwSpec(train_images=3, test_images=2, width=96, height=72, people=(2, 3)), seed=1)
    spec = WiderPedestrianSpec(train_images=3, test_images=2, width=96, height=72, people=(2, 3))
    write_wider_pedestrian(wider, spec, seed=2)
    last = next((prw / "frames").glob("*_000101.jpg"))
    shutil.copy(last, wider / "Images" / "train" / "img00001.jpg")
    return prw, wider


def check(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_an_image_in_two_datasets_is_found(roots: tuple[Path, Path]) -> None:
    output = check(*roots)
    alone, together = output.split("across datasets:")
    assert "image_in_two_splits" not in alone
    assert "warning  image_in_two_splits: 1 images are" in together
    assert "wider/train/img00001.jpg" in together and "prw/test/" in together


def test_images_are_compared_by_looks(roots: tuple[Path, Path]) -> None:
    assert "near_duplicate_in_two_splits" in check(*roots, "--near-duplicates")


def test_nothing_odd_is_not_said_where_images_look_alike(tmp_path: Path) -> None:
    for name, quality in (("a", 90), ("b", 30)):
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        (root / "labels").mkdir()
        noise = np.random.default_rng(1).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(noise).resize((96, 72)).save(root / "images" / "1.jpg", quality=quality)
        (root / "labels" / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    roots = tmp_path / "a", tmp_path / "b"
    assert "no problems found" in check(*roots).split("across datasets:")[1]
    together = check(*roots, "--near-duplicates").split("across datasets:")[1]
    assert "near_duplicate" in together and "no problems found" not in together


def test_a_snapshot_stands_for_its_root(roots: tuple[Path, Path], tmp_path: Path) -> None:
    prw, wider = roots
    arguments = ["ingest", str(prw), "--adapter", "prw", "--store", str(tmp_path / "store")]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    snapshot = next((tmp_path / "store" / "ingest").iterdir())
    assert "image_in_two_splits" in check(snapshot, wider)
    with pytest.raises(ConfigError, match="does not record where its images are"):
        check(snapshot, wider, "--near-duplicates")


def test_one_root_alone(roots: tuple[Path, Path]) -> None:
    output = check(roots[0], "--adapter", "prw")
    assert "prw: format: prw" in output and "across datasets" not in output


def test_options_that_do_not_fit_the_roots(roots: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"once per root \(2 here\)"):
        check(*roots, "--adapter", "prw")
    with pytest.raises(ConfigError, match="single root"):
        check(*roots, "--option", "split=train")
