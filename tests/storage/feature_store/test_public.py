"""What a user imports, and what that loads."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storage import feature_store
from storage.feature_store import create_features, open_features, opening

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


def test_every_public_name_is_there_and_documented() -> None:
    for name in feature_store.__all__:
        found = getattr(feature_store, name)
        assert name in dir(feature_store)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert found.__module__.startswith("storage.feature_store.") and found.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = feature_store.nonsense


def test_the_example_is_right() -> None:
    names = {"create_features": create_features, "open_features": open_features}
    (example,) = doctest.DocTestFinder(recurse=False).find(open_features, "open_features", extraglobs=names)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted == 5 and result.failed == 0
    assert opening.open_features is open_features


def test_reprs_say_what_it_is(tmp_path: Path) -> None:
    with create_features(tmp_path, 300, (4, 3, 2)) as writer:
        assert repr(writer) == f"<FeatureWriter of 300 x 4 x 3 x 2 float16 in 2 shards at {tmp_path}>"
        writer.write(0, np.ones((300, 4, 3, 2), np.float16))
    for tier, name in (("disk", "DiskReader"), ("memory", "MemoryReader"), ("remote", "RemoteReader")):
        with open_features(tmp_path, tier) as reader:  # type: ignore[arg-type]
            assert repr(reader) == f"<{name} of 300 rows of 4 x 3 x 2 float16, 14.4 kB at {tmp_path}>"
