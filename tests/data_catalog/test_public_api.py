"""What the package exports: loaded when used, documented, and the examples of its docstrings run."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

import data_catalog
from data_catalog import Catalog, Dataset, ingest_root, load_adapter
from tests.docstring_examples import check_examples

PLAIN = {"Adapter", "CatalogError", "EXCLUDED", "INVALID", "SCOPE_SEQUENCE"}
"""A protocol, an error and constants: nothing to call."""
METHODS = (
    *("Catalog", "Dataset.table", "Dataset.images", "Dataset.boxes", "Snapshot.table", "Snapshot.count"),
    *("Rows.images", "Rows.boxes", "Rows.queries", "Rows.reject"),
)
ENTRY_POINTS = sorted({*data_catalog.__all__, *METHODS} - PLAIN)


class OneSnapshot:
    """The snapshot of a dataset called prw."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return ["prw"]

    def folder(self, name: str) -> Path:
        return self.path


@pytest.fixture
def examples(prw_root: Path, tmp_path: Path) -> dict[str, Any]:
    """What the examples of docstrings start from."""
    ingest_root(prw_root, load_adapter("prw"), tmp_path / "snapshot")
    names = {name: getattr(data_catalog, name) for name in data_catalog.__all__}
    catalog = Catalog(OneSnapshot(tmp_path / "snapshot"))
    return {**names, "catalog": catalog, "root": prw_root, "work": tmp_path / "another", "pc": pc}


def found(name: str) -> Any:
    exported, _, method = name.partition(".")
    value = getattr(data_catalog, exported)
    return getattr(value, method) if method else value


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_example_of_its_docstring_runs(name: str, examples: dict[str, Any]) -> None:
    check_examples(name, found(name), examples)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_list_of_parameters_names_all_of_them(name: str) -> None:
    value = found(name)
    text = inspect.getdoc(value) or ""
    parameters = [each for each in inspect.signature(value).parameters if each not in ("self", "_images")]
    listed = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    if listed:  # functions that take what another one does refer to it
        heads = " ".join(line for line in listed.splitlines() if not line.startswith(" "))
        for parameter in parameters:
            assert parameter.startswith("_") or parameter in heads or f"**{parameter}" in heads, parameter


def test_importing_the_package_loads_no_large_library() -> None:
    script = (
        "import sys, data_catalog; data_catalog.CatalogError, data_catalog.number; "
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_export_is_there_and_others_are_not() -> None:
    assert set(data_catalog.__all__) <= set(dir(data_catalog))
    for name in data_catalog.__all__:
        assert getattr(data_catalog, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Katalog'"):
        _ = data_catalog.Katalog


def test_a_snapshot_says_what_it_holds(examples: dict[str, Any]) -> None:
    snapshot = Dataset(examples["catalog"].snapshots.path).snapshot
    assert repr(snapshot).startswith("<Snapshot of prw: 10 images, ")
    assert str(snapshot.path) in repr(snapshot)
