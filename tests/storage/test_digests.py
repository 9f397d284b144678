"""Digests follow content, not layout."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from storage.digests import canonical_json, digest_safetensors
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
    said = hashlib.sha256(b'["a","F32",[2,3]]' + tensors["a"].tobytes())
    said.update(b'["b","F16",[2]]' + tensors["b"].tobytes())
    assert same == said.hexdigest()
    save_file({**tensors, "a": tensors["a"].reshape(3, 2)}, tmp_path / "three.safetensors")
    assert same != digest_safetensors(tmp_path / "three.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(StorageError, match="not a safetensors file"):
        digest_safetensors(tmp_path / "no.safetensors")
