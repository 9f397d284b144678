from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from storage.errors import StorageError
from storage.feature_store import (
    create_features,
    export_rows,
    features_bytes,
    open_features,
    summarise_features,
    write_index,
)
from storage.feature_store.digests import read_digests


def test_a_summary_says_what_is_there(make_store, make_rows):
    rows = make_rows(300)
    path = make_store(rows, attributes={"detector": "abc", "roi": [3, 2]})
    summary = summarise_features(path)
    assert (summary.shape, summary.dtype, summary.n_shards, summary.missing_shards) == (
        rows.shape,
        "float16",
        2,
        (),
    )
    assert summary.array_bytes == rows.nbytes
    assert summary.stored_bytes == features_bytes(300, rows.shape[1:])
    assert summary.made_by == {"detector": "abc", "roi": [3, 2]}
    assert summary.content_digest == read_digests(path).content
    assert summary.rows_without_identity == 43
    assert sum(summary.identities.values()) == 257
    assert summary.identities["a", "person2"] == 4


def test_a_summary_of_an_unfinished_store(tmp_path: Path):
    with create_features(tmp_path / "store", 600, (2,)) as writer:
        writer.write(512, np.zeros((88, 2), np.float16))
    summary = summarise_features(tmp_path / "store")
    assert (summary.missing_shards, summary.content_digest, summary.identities) == ((0, 1), None, {})


def test_export_to_numpy(make_store, make_rows, tmp_path: Path):
    rows = make_rows(300)
    export_rows(open_features(make_store(rows)), [299, 7, 8], tmp_path / "chosen.npz")
    with np.load(tmp_path / "chosen.npz", allow_pickle=False) as file:
        assert np.array_equal(file["features"], rows[[299, 7, 8]])
        assert file["row"].tolist() == [299, 7, 8]
        assert file["person_id"].tolist() == ["person59", "", "person1"]
        assert file["person_id_is_null"].tolist() == [False, True, False]
        assert file["x1"].tolist() == [299, 7, 8]


def test_export_to_safetensors(make_store, make_rows, tmp_path: Path):
    rows = make_rows(300)
    export_rows(open_features(make_store(rows)), np.array([299, 7]), tmp_path / "chosen.safetensors")
    with safe_open(tmp_path / "chosen.safetensors", "numpy") as file:
        assert np.array_equal(file.get_tensor("features"), rows[[299, 7]])
        index = json.loads(file.metadata()["index"])
    assert [entry["person_id"] for entry in index] == ["person59", None]


def test_export_that_cannot_be(make_store, make_rows, tmp_path: Path):
    reader = open_features(make_store(make_rows(300)))
    with pytest.raises(StorageError, match=r"\.npz or \.safetensors"):
        export_rows(reader, [1], tmp_path / "chosen.csv")
    with pytest.raises(IndexError, match="row 300"):
        export_rows(reader, [300], tmp_path / "chosen.npz")
    assert not list(tmp_path.glob("chosen*"))


def test_export_with_the_index_of_another_program(make_store, make_rows, tmp_path: Path):
    path = make_store(make_rows(300))
    index = pq.read_table(path / "index.parquet")
    pq.write_table(index.drop_columns(["row"]), path / "index.parquet")
    export_rows(open_features(path), [3], tmp_path / "rows.npz")
    assert np.load(tmp_path / "rows.npz")["box_id"].tolist() == ["box3"]
    pq.write_table(index.slice(0, 299), path / "index.parquet")
    with pytest.raises(StorageError, match="the index has 299 rows, the array 300"):
        export_rows(open_features(path), [3], tmp_path / "rows.npz")


def test_an_index_counts_its_rows(tmp_path: Path):
    with pytest.raises(StorageError, match="at 1 it has 2"):
        write_index(tmp_path, pa.table({"row": [0, 2, 1]}))
    with pytest.raises(StorageError, match="needs a column 'row'"):
        write_index(tmp_path, pa.table({"box_id": ["a"]}))
