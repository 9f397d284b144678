"""Rows of a feature store as tables and as a shard of WebDataset, a part at a time."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.feature_store import export_rows, export_streams, open_features


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 7 rows, so that the 20 rows of a test are several."""
    monkeypatch.setattr(export_streams, "PART_BYTES", 7 * 6 * 2)


@pytest.fixture
def chosen() -> np.ndarray:
    return np.arange(299, 279, -1)


def shape_of(make_rows: Any) -> np.ndarray:
    rows: np.ndarray = make_rows(300)
    return rows.reshape(300, -1)[:, :6].reshape(300, 3, 2, 1).copy()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_table_has_the_index_and_a_tensor_per_row(
    suffix: str, make_store: Any, make_rows: Any, chosen: np.ndarray, tmp_path: Path
) -> None:
    rows, out = shape_of(make_rows), tmp_path / f"rows.{suffix}"
    with open_features(make_store(rows)) as reader:
        export_rows(reader, chosen, out)
        index = reader.index.take(pa.array(chosen))
    table = pq.read_table(out) if suffix == "parquet" else pa.ipc.open_file(out).read_all()
    assert table["row"].to_pylist() == chosen.tolist()
    assert (table["features"].combine_chunks().to_numpy_ndarray() == rows[chosen]).all()
    for name in index.column_names:
        assert table[name].to_pylist() == index[name].to_pylist()
    if suffix == "parquet":
        assert pq.ParquetFile(out).num_row_groups == 3
    assert [path.name for path in tmp_path.glob(".*partial")] == []


def test_a_tar_is_a_shard_of_webdataset(
    make_store: Any, make_rows: Any, chosen: np.ndarray, tmp_path: Path
) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    rows, out = shape_of(make_rows), tmp_path / "rows.tar"
    path = make_store(rows)
    with open_features(path) as reader:
        export_rows(reader, chosen, out)
        people = reader.index["person_id"].to_pylist()
    samples = list(webdataset.WebDataset(f"file:{out}", shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [f"{row:09d}" for row in chosen]
    for row, sample in zip(chosen.tolist(), samples, strict=True):
        assert (sample["npy"] == rows[row]).all() and sample["json"]["person_id"] == people[row]
    again = tmp_path / "again.tar"
    with open_features(path) as reader:
        export_rows(reader, chosen, again)
    assert again.read_bytes() == out.read_bytes()
    with tarfile.open(out) as tar:
        assert {member.mtime for member in tar} == {0}
