"""A dataset that none of our code knows, added by a small package outside the tree."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_catalog.errors import CatalogError
from data_catalog.skeleton import write_skeleton
from tests.third_party import install_adapter, write_dataset

MOST_LINES = 40


@dataclass(frozen=True)
class Package:
    """An installed package, and the environment in which it is found."""

    folder: Path
    environment: dict[str, str]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path / "package", install_adapter(tmp_path / "package"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


def _run(package: Package, *arguments: str | Path) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=package.environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_short(package: Package) -> None:
    files = (package.folder / "street_cams.py", package.folder / "pyproject.toml")
    lines = [line for file in files for line in file.read_text().splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES


def test_it_checks_and_ingests(package: Package, dataset: Path, tmp_path: Path) -> None:
    start = ("-c", "from flows.cli.main import main; main()", "datasets")
    assert "street-cams" in _run(package, *start, "list")
    assert "format: street-cams" in _run(package, *start, "check", dataset, "--adapter", "street-cams")
    arguments = ("--adapter", "street-cams", dataset, "--store", tmp_path / "store")
    assert "built in" in _run(package, *start, "ingest", *arguments)
    assert "cached in" in _run(package, *start, "ingest", *arguments)


def test_its_own_test_passes(package: Package) -> None:
    folder = package.folder
    out = _run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder)
    assert "1 passed" in out


def test_names_that_cannot_be_adapters(tmp_path: Path) -> None:
    for name in ("Two Words", "../up", "", "1st", "a-", "a--b"):
        with pytest.raises(CatalogError, match="cannot name an adapter"):
            write_skeleton(tmp_path, name)
    for name in ("csv", "import", "numpy", "prw", "data-catalog"):
        with pytest.raises(CatalogError, match=r"is taken|the name of a module"):
            write_skeleton(tmp_path, name)
    write_skeleton(tmp_path / "x", "mine")
    with pytest.raises(CatalogError, match="already exists"):
        write_skeleton(tmp_path / "x", "mine")
