"""Arrays that other clients wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from storage.errors import StorageError
from storage.feature_store import create_features, open_features, summarise_features, verify_features

SHAPE = (600, 4, 3, 2)


def create(path: Path, **options: Any) -> zarr.Array:
    return zarr.create_group(path).create_array(
        "features",
        shape=SHAPE,
        dtype="float16",
        **{"chunks": (1, 4, 3, 2), "shards": (256, 4, 3, 2), "compressors": None, **options},
    )


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(5).standard_normal(SHAPE).astype(np.float16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compressors": ZstdCodec(level=3)},
        {"compressors": Crc32cCodec()},
        {"compressors": [ZstdCodec(level=3), Crc32cCodec()]},
        {"chunk_key_encoding": {"name": "default", "separator": "."}},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"shards": (600, 4, 3, 2)},
    ],
)
@pytest.mark.parametrize("tier", ["disk", "remote", "memory"])
def test_layouts_that_are_read_directly(tmp_path: Path, rows, options, tier):
    create(tmp_path / "store", **options)[:] = rows
    for path in (tmp_path / "store", tmp_path / "store" / "features"):
        reader = open_features(path, tier)
        indices = np.array([599, 0, 0, 256, 255])
        assert np.array_equal(reader.rows(indices), rows[indices])


@pytest.mark.parametrize("tier", ["disk", "remote", "memory"])
def test_reordered_and_missing_rows_and_shards(tmp_path: Path, rows, tier):
    array = create(tmp_path / "store", fill_value=7)
    generator = np.random.default_rng(0)
    expected = np.full(SHAPE, 7, np.float16)
    for row in generator.permutation(200):  # row by row: each write appends to the shard in that order
        array[row] = expected[row] = rows[row]
    array[520:530] = expected[520:530] = rows[520:530]
    assert not (tmp_path / "store/features/c/1/0/0/0").exists()
    reader = open_features(tmp_path / "store", tier)
    assert np.array_equal(reader.rows(np.arange(600)), expected)
    indices = generator.integers(0, 600, (7, 30))
    assert np.array_equal(reader.rows(indices), expected[indices])


def test_chunks_that_lie_in_another_order_in_the_file(tmp_path: Path, rows):
    """Not what a client happens to do, but what the index allows: rows reversed, with gaps."""
    create(tmp_path / "store")[:] = rows
    file = tmp_path / "store/features/c/0/0/0/0"
    content = file.read_bytes()
    records = np.frombuffer(content, np.uint8, 256 * 48).reshape(256, 48)
    from storage.feature_store.shard_index import ShardIndex, encode_index

    offsets = np.arange(256)[::-1] * 50
    body = np.zeros((256, 50), np.uint8)
    body[::-1, :48] = records
    file.write_bytes(body.tobytes() + encode_index(ShardIndex(offsets.astype(np.int64), np.full(256, 48))))
    assert np.array_equal(zarr.open(tmp_path / "store")["features"][:], rows)
    assert np.array_equal(open_features(tmp_path / "store", "disk").rows(np.arange(600)), rows)


def test_index_at_the_start_as_tensorstore_writes_it(tmp_path: Path, rows):
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, 4, 3, 2],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "start",
        },
    }
    grid = {"name": "regular", "configuration": {"chunk_shape": [256, 4, 3, 2]}}
    tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(tmp_path / "store")},
            "metadata": {"shape": SHAPE, "data_type": "float16", "chunk_grid": grid, "codecs": [sharding]},
            "create": True,
        }
    ).result().write(rows).result()
    for tier in ("disk", "remote"):
        assert np.array_equal(
            open_features(tmp_path / "store", tier).rows([599, 0, 300]), rows[[599, 0, 300]]
        )


@pytest.mark.parametrize(
    "options",
    [
        {"shards": None},
        {"compressors": BloscCodec()},
        {"chunks": (2, 4, 3, 2)},
        {"chunks": (1, 2, 3, 2), "shards": None},
    ],
)
def test_other_layouts_go_through_tensorstore(tmp_path: Path, rows, options, caplog):
    create(tmp_path / "store", **options)[:] = rows
    with caplog.at_level("DEBUG"):
        reader = open_features(tmp_path / "store")
    assert "through TensorStore" in caplog.text
    indices = np.array([599, 0, 0, 256, 255])
    assert np.array_equal(reader.rows(indices), rows[indices])
    assert np.array_equal(open_features(tmp_path / "store", "memory").rows(indices), rows[indices])
    with pytest.raises(StorageError, match="rows cannot be read straight from its files"):
        open_features(tmp_path / "store", "disk")


@pytest.mark.parametrize("tier", ["disk", "remote"])
def test_a_flipped_byte_is_found_by_the_crc_of_its_row(tmp_path: Path, rows, tier):
    create(tmp_path / "store", compressors=Crc32cCodec())[:] = rows
    file = tmp_path / "store/features/c/0/0/0/0"
    content = bytearray(file.read_bytes())
    content[52 * 3 + 5] ^= 1
    file.write_bytes(content)
    with pytest.raises(StorageError, match=r"row 3 .* CRC-32C"):
        open_features(tmp_path / "store", tier).rows([3])
    assert np.array_equal(open_features(tmp_path / "store", tier).rows([4]), rows[[4]])


@pytest.mark.parametrize(
    ("written", "value"),
    [("0x7e00", np.nan), ("0x3c00", 1.0), ("-Infinity", -np.inf), ("NaN", np.nan), (0.5, 0.5)],
)
def test_fill_values_as_the_format_allows_them(tmp_path: Path, written, value):
    create(tmp_path / "store")
    file = tmp_path / "store/features/zarr.json"
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps(metadata | {"fill_value": written}))
    found = open_features(tmp_path / "store").rows([5])
    assert np.array_equal(found, np.full_like(found, value), equal_nan=True)


@pytest.mark.parametrize(
    "damage", ["[]", "3", "null", '"text"', "{", '{"zarr_format": 3, "node_type": "array"}']
)
def test_metadata_that_is_none_is_refused(tmp_path: Path, damage):
    create(tmp_path / "store")
    (tmp_path / "store/features/zarr.json").write_text(damage)
    for read in (open_features, summarise_features, verify_features):
        with pytest.raises(StorageError, match=r"zarr\.json"):
            read(tmp_path / "store")


@pytest.mark.parametrize("file", ["zarr.json", "features/zarr.json"])
@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "\xff"])
def test_metadata_without_content_is_written_again_by_a_resume(tmp_path: Path, rows, file: str, damage: str):
    """As a power cut leaves it where a file was renamed before its bytes were on the disk."""
    path = tmp_path / "store"
    with create_features(path, len(rows), SHAPE[1:]) as writer:
        writer.write(0, rows[:256])
    whole = (path / file).read_bytes()
    (path / file).write_bytes(damage.encode("latin-1"))
    with create_features(path, len(rows), SHAPE[1:]) as writer:
        assert writer.complete_shards == (0,) and (path / file).read_bytes() == whole
        writer.write(256, rows[256:])
    assert verify_features(path) == []


def test_other_metadata_is_refused(tmp_path: Path):
    create(tmp_path / "store")
    (tmp_path / "store/features/zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    with pytest.raises(StorageError, match=r"zarr\.json exists with other metadata"):
        create_features(tmp_path / "store", 600, SHAPE[1:])


@pytest.mark.parametrize(
    ("shape", "shard"), [("512", 256), ([-1, 4, 3, 2], 256), ([600, 4, 3, 2], 0), ([], 256)]
)
def test_shapes_of_nonsense_are_refused(tmp_path: Path, shape, shard):
    create(tmp_path / "store")
    file = tmp_path / "store" / "features" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["shape"] = shape
    metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = shard
    file.write_text(json.dumps(metadata))
    with pytest.raises(StorageError, match="is damaged"):
        open_features(tmp_path / "store")


def test_a_fill_value_of_nonsense_is_refused(tmp_path: Path):
    create(tmp_path / "store")
    file = tmp_path / "store/features/zarr.json"
    for nonsense in ("0x7", "many", None, [0]):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"fill_value": nonsense}))
        with pytest.raises(StorageError, match="damaged or incomplete Zarr metadata"):
            open_features(tmp_path / "store")


def test_what_another_program_wrote_is_held_to_its_checksums(tmp_path: Path, rows):
    create(tmp_path / "store", compressors=Crc32cCodec())[:] = rows
    assert verify_features(tmp_path / "store") == []
    file = tmp_path / "store/features/c/1/0/0/0"
    content = bytearray(file.read_bytes())
    content[52 * 3 + 5] ^= 1
    file.write_bytes(content)
    (found,) = verify_features(tmp_path / "store")
    assert found.shard == 1 and "CRC-32C does not match" in found.reason
    create(tmp_path / "bare")[:] = rows
    with pytest.raises(StorageError, match="neither digests nor checksums of its rows"):
        verify_features(tmp_path / "bare")
