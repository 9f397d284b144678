"""What a user imports, and what that loads."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage import feature_store
from storage.feature_store import create_features, open_features
from tests.docstring_examples import check_examples

HEAVY = ("tensorstore", "pandas", "zarr", "dask", "pyarrow", "torch")


def loaded_after(code: str) -> set[str]:
    """Those of the heavy packages that a process has loaded after `code`."""
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import storage, storage.feature_store") == set()


def test_reading_a_local_store_loads_neither_tensorstore_nor_zarr(tmp_path: Path) -> None:
    with create_features(tmp_path, 3, (2,)) as writer:
        writer.write(0, np.ones((3, 2), np.float16))
    code = f"from storage.feature_store import open_features\nopen_features({str(tmp_path)!r}).rows([0])"
    assert loaded_after(code) == {"pyarrow"}


@pytest.fixture
def examples(tmp_path: Path) -> dict[str, Any]:
    """What the examples of docstrings start from."""
    features = tmp_path / "features"
    with create_features(features, n_rows=4, row_shape=(2,)) as writer:
        writer.write(0, np.arange(8).reshape(4, 2))
    people = {"row": [0, 1, 2, 3], "dataset": ["prw"] * 4, "person_id": ["7", "7", "9", None]}
    feature_store.write_index(features, pa.table(people))
    (work := tmp_path / "work").mkdir()
    names = {name: getattr(feature_store, name) for name in feature_store.__all__}
    return {**names, "features": features, "work": work, "np": np, "pa": pa}


@pytest.mark.parametrize("name", sorted({*feature_store.__all__} - {"StorageError", "Tier"}))
def test_the_example_of_its_docstring_runs(name: str, examples: dict[str, Any]) -> None:
    check_examples(name, getattr(feature_store, name), examples)


@pytest.mark.parametrize("name", [name for name in feature_store.__all__ if name.islower()])
def test_a_function_lists_its_parameters_and_what_it_returns(name: str) -> None:
    function = getattr(feature_store, name)
    text = inspect.getdoc(function) or ""
    parameters = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    heads = {each for line in parameters.splitlines() if line[0] != " " for each in line.split(", ")}
    signature = inspect.signature(function)
    assert heads == {*signature.parameters}
    assert ("Returns\n-------" in text) == (signature.return_annotation != "None")


def test_every_public_name_is_listed() -> None:
    assert {*feature_store.__all__} <= {*dir(feature_store)}
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = feature_store.nonsense


def test_reprs_say_what_it_is(tmp_path: Path) -> None:
    with create_features(tmp_path, 300, (4, 3, 2)) as writer:
        assert repr(writer) == f"<FeatureWriter of 300 x 4 x 3 x 2 float16 in 2 shards at {tmp_path}>"
        writer.write(0, np.ones((300, 4, 3, 2), np.float16))
    for tier, name in (("disk", "DiskReader"), ("memory", "MemoryReader"), ("remote", "RemoteReader")):
        with open_features(tmp_path, tier) as reader:  # type: ignore[arg-type]
            assert repr(reader) == f"<{name} of 300 rows of 4 x 3 x 2 float16, 14.4 kB at {tmp_path}>"
