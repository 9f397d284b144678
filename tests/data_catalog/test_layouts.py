"""Which adapter fits a root; and what is said where none does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_catalog.adapters import adapter_names, load_adapter
from data_catalog.adapters.protocol import check_options
from data_catalog.errors import CatalogError
from data_catalog.layouts import MOST_ABOVE, fitting_adapter, inventory
from data_catalog.reading import layout_of
from data_catalog.synthetic import (
    PrwSpec,
    WiderPedestrianSpec,
    write_prw,
    write_wider_pedestrian,
)
from flows.cli.datasets import app


def prw(root: Path) -> None:
    write_prw(root, PrwSpec(train_images=2, test_images=2, width=96, height=72, people=(2, 3)), seed=1)


def wider(root: Path) -> None:
    spec = WiderPedestrianSpec(train_images=2, test_images=2, width=96, height=72, people=(2, 3))
    write_wider_pedestrian(root, spec, seed=1)


def market(root: Path) -> None:
    (root / "bounding_box_train").mkdir(parents=True)
    (root / "bounding_box_train" / "x.gif").touch()


def yolo(root: Path) -> None:
    (root / "labels").mkdir(parents=True)
    (root / "labels" / "a.txt").touch()


@pytest.mark.parametrize(
    ("write", "lost", "near"),
    [
        (prw, "frame_train.mat", "prw"),
        (prw, "annotations", "prw"),
        (market, None, "market1501"),
        (yolo, None, "yolo"),
    ],
)
def test_the_nearest_layout_is_named(
    write: Callable[[Path], None], lost: str | None, near: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    write(root)
    for path in root.glob(lost) if lost else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CatalogError, match="no adapter knows its layout") as raised:
        fitting_adapter(root, {})
    said = str(raised.value)
    assert f"the nearest is '{near}', which says: " in said
    assert f"Looked for: {', '.join(adapter_names())}." in said and "\n" not in said


def test_what_lies_there_is_said_where_none_is_near(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "boxes.csv", ".hidden"):
        (tmp_path / name).touch()
    with pytest.raises(CatalogError, match=r"it holds 2 \.jpg, 1 \.csv, and no format is near\. Looked"):
        fitting_adapter(tmp_path, {})


def test_an_option_that_is_wrong_is_told_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    yolo(root)
    (root / "images").mkdir()
    (root / "images" / "a.jpg").touch()
    with pytest.raises(CatalogError) as raised:
        fitting_adapter(root, {"classes": "persn"})
    assert str(raised.value).startswith(f"{root}: option classes='persn': ")


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_part_of_a_dataset_leads_to_the_whole(part: str, tmp_path: Path) -> None:
    root = tmp_path / "street"
    yolo(root)
    (root / "images").mkdir()
    (root / "images" / "a.jpg").touch()
    hint = f"; the folder {root} above it looks like yolo: give that one"
    with pytest.raises(CatalogError, match=re.escape(hint)):
        fitting_adapter(root / part, {})
    for number in range(MOST_ABOVE):
        (root / f"{number}.bin").touch()
    with pytest.raises(CatalogError) as raised:
        fitting_adapter(root / part, {})
    assert hint not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.zip", "is an archive: unpack it"),
        ("a.json", "is a file: give the folder"),
        ("a", "does not exist"),
    ],
)
def test_a_root_that_is_not_a_folder(name: str, said: str, tmp_path: Path) -> None:
    if name != "a":
        (tmp_path / name).touch()
    with pytest.raises(CatalogError, match=said):
        fitting_adapter(tmp_path / name, {})
    with pytest.raises(CatalogError, match=said):
        layout_of(load_adapter("coco"), tmp_path / name, {})


def test_archives_are_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "export.zip").touch()
    with pytest.raises(CatalogError, match=r"it holds 1 \.zip \(unpack it first\)"):
        fitting_adapter(tmp_path, {})


def test_names_that_are_nearly_right() -> None:
    with pytest.raises(CatalogError, match=r"did you mean 'coco'\?"):
        load_adapter("COCO")
    with pytest.raises(CatalogError, match=r"did you mean 'categories'\?"):
        check_options(load_adapter("coco"), {"category": "person"})


def test_a_link_to_its_own_folder_is_no_endless_walk(tmp_path: Path) -> None:
    (tmp_path / "deep").symlink_to(tmp_path)
    (tmp_path / "a.csv").touch()
    assert inventory(tmp_path).folders == {"deep"}


def test_ingest_finds_the_format_itself(tmp_path: Path) -> None:
    wider(tmp_path / "root")
    words = ["ingest", str(tmp_path / "root"), "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0 and "format: wider-pedestrian" in result.output
    with pytest.raises(CatalogError, match="no adapter knows its layout"):
        CliRunner().invoke(app, ["ingest", str(tmp_path / "store"), *words[2:]], catch_exceptions=False)
