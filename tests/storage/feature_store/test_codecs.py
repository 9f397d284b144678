"""Rows that are stored in fewer bytes: how near they come back, alone and in company, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr

from benchmarks.range_server import serve
from storage.errors import StorageError
from storage.feature_store import (
    RowCodec,
    create_features,
    feature_statistics,
    finish_features,
    open_features,
    principal_axes,
    summarise_features,
    verify_features,
    write_index,
)
from storage.feature_store.taking_over import EarlierRows, adopt_shards, fill_shards
from tests.storage.feature_store.conftest import make_index

SHAPE = (12, 4, 3)
F16 = np.dtype(np.float16)


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    """Non-negative, as a shared map is, and of 5 directions among 12 channels but for a little noise."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).standard_normal((12, 5))
    values = np.einsum("ck,nkyx->ncyx", mix, rng.standard_normal((count, 5, 4, 3)))
    return np.abs(values + 0.01 * rng.standard_normal((count, *SHAPE))).astype(np.float16)


def of_directions(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).standard_normal((12, 5))
    return (3 + np.einsum("ck,nkyx->ncyx", mix, rng.standard_normal((count, 5, 4, 3)))).astype(np.float16)


INT8 = RowCodec(SHAPE, F16, "int8")
AXES = principal_axes([of_directions(64, 1)], 5)
PCA = RowCodec(SHAPE, F16, "float", AXES)
BOTH = RowCodec(SHAPE, F16, "int8", AXES)


def decoded(codec: RowCodec, rows: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows), *codec.row_shape), codec.dtype)
    codec.decode(codec.encode(rows), out)
    return out


def make(path: Path, rows: np.ndarray, codec: RowCodec, **options: object) -> Path:
    with create_features(path, len(rows), SHAPE, rows.dtype, codec=codec, **options) as writer:  # type: ignore[arg-type]
        writer.write(0, rows)
    write_index(path, make_index(len(rows)))
    return path


def test_int8_errs_by_at_most_half_a_step_of_each_channel() -> None:
    rows = rows_of(30)
    step = (rows.max(axis=(2, 3)) - rows.min(axis=(2, 3))).astype(np.float64) / 255
    error = np.abs(decoded(INT8, rows).astype(np.float64) - rows).max(axis=(2, 3))
    rounding = 2.0**-10 * np.abs(rows).max(axis=(2, 3))
    assert (error <= step / 2 + rounding).all()


def test_int8_keeps_constant_channels_and_the_zeros_of_a_map() -> None:
    rows = rows_of(9)
    rows[:, :, 0, 0] = 0
    rows[:, 3] = 0
    rows[:, 4] = 1.5
    got = decoded(INT8, rows)
    assert (got[:, 3] == 0).all() and (got[:, 4] == 1.5).all() and (got[:, :3, 0, 0] == 0).all()
    tiny = np.full((1, *SHAPE), 6e-8, np.float16)
    tiny[0, :, 1] = 0
    np.testing.assert_array_equal(decoded(INT8, tiny), tiny)


def test_principal_axes_find_the_directions_in_which_rows_vary() -> None:
    rows = of_directions(40, 2)
    np.testing.assert_allclose(decoded(PCA, rows), rows, atol=0.02)
    np.testing.assert_allclose(AXES.axes @ AXES.axes.T, np.eye(5), atol=1e-5)
    fewer = RowCodec(SHAPE, F16, "float", principal_axes([of_directions(64, 1)], 3))
    wide = rows.astype(np.float64)
    assert np.abs(decoded(fewer, rows) - wide).mean() > 10 * np.abs(decoded(PCA, rows) - wide).mean()
    again = principal_axes(iter([of_directions(64, 1)[:10], of_directions(64, 1)[10:]]), 5)
    assert again.digest == AXES.digest


@pytest.mark.parametrize("codec", [INT8, PCA, BOTH])
def test_a_row_has_the_same_bytes_alone_and_in_company(codec: RowCodec) -> None:
    """What growth and resumes stand on."""
    rows = of_directions(50, 3)
    together, places = codec.encode(rows), np.array([17, 3, 49])
    np.testing.assert_array_equal(codec.encode(rows[places]), together[places])
    np.testing.assert_array_equal(codec.encode(rows[17:18])[0], together[17])


@pytest.mark.parametrize(("codec", "fewer"), [(INT8, 1.5), (PCA, 2.4), (BOTH, 3.6)])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_store_reads_as_decoded_rows_in_every_tier(
    tmp_path: Path, codec: RowCodec, fewer: float, compression: str
) -> None:
    rows = of_directions(300, 4)
    path = make(tmp_path / "store", rows, codec, compression=compression)
    wanted, asked = decoded(codec, rows), np.array([[299, 0], [5, 5]])
    tiers = [("disk", 0), ("memory", 0), ("auto", 1 << 30), ("remote", 0)]
    for tier, budget in tiers:
        with open_features(path, tier, memory_budget=budget) as reader:  # type: ignore[arg-type]
            assert (reader.shape, reader.dtype) == (rows.shape, F16)
            np.testing.assert_array_equal(reader.rows(asked), wanted[asked])
            np.testing.assert_array_equal(reader.rows(np.arange(300)), wanted)
            assert reader.index.num_rows == 300
    summary = summarise_features(path)
    assert (summary.shape, summary.dtype, summary.codec) == (rows.shape, "float16", codec.description)
    if compression == "none":
        assert summary.array_bytes / (summary.stored_bytes - 2 * (16 * 256 + 4)) == fewer
    assert verify_features(path) == []
    assert feature_statistics(path).channel_mean == pytest.approx(
        wanted.astype(np.float64).mean(axis=(0, 2, 3)), rel=1e-3
    )
    (stored, _) = codec.stored
    assert zarr.open_array(path / "features").shape == (300, *stored)


def test_a_store_is_read_over_http(tmp_path: Path) -> None:
    rows = of_directions(70, 5)
    make(tmp_path / "store", rows, BOTH)
    with serve(tmp_path, 0) as url:
        for where in (f"{url}/store", f"{url}/store/features"):
            with open_features(where) as reader:
                np.testing.assert_array_equal(reader.rows([69, 1]), decoded(BOTH, rows)[[69, 1]])


def test_growth_gives_the_digest_of_a_store_from_nothing(tmp_path: Path) -> None:
    old, new = of_directions(300, 6), of_directions(20, 7)
    earlier = EarlierRows(make(tmp_path / "old", old, BOTH), (), {})
    taken = np.array([*range(256), *[-1] * 20, *range(256, 300)])
    whole = np.concatenate([old[:256], new, old[256:]])
    with create_features(tmp_path / "grown", 320, SHAPE, codec=BOTH) as writer:
        adopted = list(adopt_shards(writer, range(2), taken, earlier))
        list(fill_shards(writer, [1], taken, earlier, iter([new[:7], new[7:]])))
    assert adopted == [0]
    assert finish_features(tmp_path / "grown") == finish_features(make(tmp_path / "whole", whole, BOTH))


def test_rows_of_another_codec_are_not_taken_over(tmp_path: Path) -> None:
    rows = of_directions(20, 6)
    others = RowCodec(SHAPE, F16, "int8", principal_axes([of_directions(64, 9)], 5))
    earlier = EarlierRows(make(tmp_path / "old", rows, others), (), {})
    with create_features(tmp_path / "new", 20, SHAPE, codec=BOTH) as writer:
        with pytest.raises(StorageError, match="another codec"):
            list(adopt_shards(writer, [0], np.arange(20), earlier))
        with pytest.raises(StorageError, match="another codec"):
            list(fill_shards(writer, [0], np.arange(20), earlier, iter(())))
        writer.write(0, rows)


def test_a_resume_with_other_axes_is_refused(tmp_path: Path) -> None:
    with create_features(tmp_path / "store", 300, SHAPE, codec=PCA) as writer:
        writer.write(0, of_directions(256))
    others = RowCodec(SHAPE, F16, "float", principal_axes([of_directions(64, 9)], 5))
    with pytest.raises(StorageError, match="other metadata"):
        create_features(tmp_path / "store", 300, SHAPE, codec=others)


def without_file(path: Path) -> None:
    (path / "codec.safetensors").unlink()


def with_other_axes(path: Path) -> None:
    (path / "codec.safetensors").write_bytes(principal_axes([of_directions(64, 9)], 5).file)


def with_half_a_file(path: Path) -> None:
    content = (path / "codec.safetensors").read_bytes()
    (path / "codec.safetensors").write_bytes(content[: len(content) // 2])


def with_noted(path: Path, **changed: object) -> None:
    file = path / "features" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["feature_store"]["codec"].update(changed)
    file.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_file, "codec.safetensors is missing"),
        (with_other_axes, "damaged or of another array"),
        (with_half_a_file, "is damaged"),
        (partial(with_noted, values="int4"), "its codec cannot be read"),
        (partial(with_noted, row_shape=[12, 4, 10**9]), "its codec cannot be read"),
        (partial(with_noted, row_shape=[10**4, 10**4, 4]), "its codec cannot be read"),
        (partial(with_noted, row_shape=[12, 4, 5]), "do not fit its codec"),
        (partial(with_noted, channels=4), "damaged or of another array"),
        (partial(with_noted, axes=None), "damaged or of another array"),
    ],
)
def test_a_damaged_codec_is_told_and_no_row_is_handed_out(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = make(tmp_path / "store", of_directions(20), BOTH)
    damage(path)
    for read in (open_features, verify_features, summarise_features):
        with pytest.raises(StorageError, match=message):
            read(path)
    with pytest.raises(StorageError, match=message):
        EarlierRows(path, (), {})


def test_values_that_a_codec_cannot_hold_are_refused(tmp_path: Path) -> None:
    rows = of_directions(20)
    rows[7, 2, 1, 1] = np.inf
    with pytest.raises(StorageError, match="first in row 7"):
        make(tmp_path / "infinite", rows, INT8)
    large = np.zeros((3, *SHAPE), np.float32)
    large[1, 0, 0, 0] = 1e9
    with pytest.raises(StorageError, match="values of row 1 are too large"):
        RowCodec(SHAPE, np.dtype(np.float32), "int8").encode(large)
    for dtype, values, axes in ((np.uint8, "int8", None), (F16, "float", None)):
        with pytest.raises(StorageError):
            RowCodec(SHAPE, np.dtype(dtype), values, axes)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="12 channels do not have 13"):
        principal_axes([rows_of(4)], 13)
    with pytest.raises(StorageError, match="0 channels do not have"):
        principal_axes([], 1)
