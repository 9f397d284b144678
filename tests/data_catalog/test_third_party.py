"""A dataset that none of our code knows, added by a small package outside the tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_catalog.errors import CatalogError
from data_catalog.skeleton import write_skeleton

MOST_LINES = 40

_PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The skeleton of an adapter, as if `pip install --target` had put it into a folder of its own."""
    folder = tmp_path / "package"
    write_skeleton(folder, "street-cams")
    info = folder / "personsearch_street_cams-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: personsearch-street-cams\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[personsearch.datasets]\nstreet-cams = street_cams:StreetCams\n")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "dataset"
    (root / "images").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (64, 48)).save(root / "images" / f"{name}.jpg")
    (root / "boxes.csv").write_text("a.jpg,1,2,11,32,anna\nb.jpg,20,2,30,32,\n")
    return root


def _run(package: Path, *arguments: str | Path) -> str:
    path = os.pathsep.join([str(package), str(_PROJECT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_short(package: Path) -> None:
    files = (package / "street_cams.py", package / "pyproject.toml")
    lines = [line for file in files for line in file.read_text().splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES


def test_it_checks_and_ingests(package: Path, dataset: Path, tmp_path: Path) -> None:
    start = ("-c", "from flows.cli.main import main; main()", "datasets")
    assert "street-cams" in _run(package, *start, "list")
    assert "format: street-cams" in _run(package, *start, "check", dataset, "--adapter", "street-cams")
    arguments = ("--adapter", "street-cams", "--root", dataset, "--store", tmp_path / "store")
    assert "made in" in _run(package, *start, "ingest", *arguments)
    assert "cached in" in _run(package, *start, "ingest", *arguments)


def test_its_own_test_passes(package: Path) -> None:
    out = _run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", package, package)
    assert "1 passed" in out


def test_names_that_cannot_be_adapters(tmp_path: Path) -> None:
    for name in ("Two Words", "../up", "", "1st"):
        with pytest.raises(CatalogError, match="cannot name an adapter"):
            write_skeleton(tmp_path, name)
    write_skeleton(tmp_path / "x", "mine")
    with pytest.raises(CatalogError, match="there already"):
        write_skeleton(tmp_path / "x", "mine")
