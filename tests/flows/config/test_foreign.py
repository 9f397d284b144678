"""The rows of features from elsewhere, as a branch reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows.config.foreign import find_features
from flows.errors import ConfigError
from storage.feature_store import RowCodec, create_features, open_features, write_index


def store(folder: Path, shape: tuple[int, ...], dtype: str, codec: RowCodec | None = None) -> Path:
    with create_features(folder, 2, shape, dtype, codec=codec) as writer:
        writer.write(0, np.ones((2, *shape), dtype))
    write_index(folder, pa.table({"row": pa.array([0, 1]), "box_id": ["a", "b"]}))
    return folder


@pytest.mark.parametrize("values", [None, "int8"])
def test_rows_are_described_as_they_are_read(tmp_path: Path, values: str | None) -> None:
    """Not as a codec stores them."""
    codec = None if values is None else RowCodec((4, 3, 2), np.dtype(np.float16), "int8")
    found = find_features("./features", store(tmp_path / "features", (4, 3, 2), "float16", codec).parent)
    with open_features(found.folder) as reader:
        assert (found.maps, found.dtype) == (reader.shape[1:], reader.dtype.name) == ((4, 3, 2), "float16")


def test_bytes_are_no_features(tmp_path: Path) -> None:
    store(tmp_path / "features", (4, 3, 2), "uint8")
    with pytest.raises(ConfigError, match=r"features has rows 4 x 3 x 2 of uint8: write C numbers"):
        find_features("./features", tmp_path)
