"""Digests follow content, not layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from storage.digests import canonical_json, digest_safetensors, digest_table
from storage.errors import StorageError


def test_canonical_json_ignores_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None]}) == b'{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_safetensors_digest_is_over_tensors_only(tmp_path: Path) -> None:
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float16)}
    save_file(tensors, tmp_path / "one.safetensors", metadata={"made": "today"})
    save_file(dict(reversed(tensors.items())), tmp_path / "two.safetensors")
    same = digest_safetensors(tmp_path / "one.safetensors")
    assert same == digest_safetensors(tmp_path / "two.safetensors")
    save_file({**tensors, "a": tensors["a"].reshape(3, 2)}, tmp_path / "three.safetensors")
    assert same != digest_safetensors(tmp_path / "three.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(StorageError, match="not a safetensors file"):
        digest_safetensors(tmp_path / "no.safetensors")


def test_table_digest_ignores_chunks_dictionaries_and_what_lies_under_nulls() -> None:
    plain = pa.table(
        {
            "name": pa.array(["ab", None, "c", ""]),
            "x": pa.array([1.0, None, float("nan"), 2.0], pa.float32()),
            "flag": pa.array([True, False, None, True]),
            "e": pa.array([[1, 2], [3, 4], [5, 6], [7, 8]], pa.list_(pa.float32(), 2)),
        }
    )
    chunked = pa.concat_tables([plain.slice(0, 1), plain.slice(1)])
    encoded = chunked.set_column(0, "name", chunked["name"].dictionary_encode())
    hidden = pa.Array.from_buffers(
        pa.float32(), 4, [pa.py_buffer(b"\x0d"), pa.py_buffer(np.array([1, 9, np.nan, 2], np.float32))]
    )
    under = plain.set_column(1, "x", hidden)
    assert digest_table(plain) == digest_table(chunked) == digest_table(encoded) == digest_table(under)
    assert digest_table(plain) != digest_table(plain.take([1, 0, 2, 3]))
    moved = plain.set_column(0, "name", pa.array(["a", None, "bc", ""]))
    assert digest_table(plain) != digest_table(moved)
    null_to_empty = plain.set_column(0, "name", pa.array(["ab", "", "c", ""]))
    assert digest_table(plain) != digest_table(null_to_empty)
