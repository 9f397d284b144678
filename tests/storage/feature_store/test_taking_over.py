"""Rows that another store has: whole shards are shared, moved rows copied, damaged ones never handed out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storage.feature_store import (
    FeatureWriter,
    create_features,
    finish_features,
    open_features,
    verify_features,
)
from storage.feature_store.taking_over import (
    DamagedRowsError,
    EarlierRows,
    adopt_shards,
    fill_shards,
    missing_rows,
)

SHAPE = (3, 2, 2)
SHARD = 4


def rows(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count * 12, dtype=np.float16).reshape(count, *SHAPE)


OLD = rows(0, 10)
NEW = rows(500, 3)


def written(path: Path, block: np.ndarray, compression: str = "none") -> Path:
    with opened(path, len(block), compression) as writer:
        writer.write(0, block)
    return path


def opened(path: Path, count: int, compression: str = "none") -> FeatureWriter:
    return create_features(path, count, SHAPE, rows_per_shard=SHARD, compression=compression)  # type: ignore[arg-type]


@pytest.fixture
def earlier(tmp_path: Path) -> EarlierRows:
    return EarlierRows(written(tmp_path / "earlier", OLD), (), {})


def grow(path: Path, taken: np.ndarray, earlier: EarlierRows, parts: Iterator[np.ndarray]) -> tuple[int, str]:
    """How many shards were shared, and the digest."""
    with opened(path, len(taken)) as writer:
        adopted = list(adopt_shards(writer, range(writer.layout.n_shards), taken, earlier))
        rest = [shard for shard in range(writer.layout.n_shards) if shard not in adopted]
        list(fill_shards(writer, rest, taken, earlier, parts))
    assert verify_features(path) == []
    return len(adopted), finish_features(path)


@pytest.mark.parametrize(
    ("taken", "shared"),
    [
        ([*range(10), -1, -1, -1], 2),  # at the end
        ([-1, *range(10), -1, -1], 0),  # at the front, so that all have moved
        ([0, 1, 2, 3, -1, 4, 5, 6, 7, -1, 8, 9, -1], 1),
        ([8, 9, 4, 5, 6, 7, 0, 1, -1, 2, 3, -1, -1], 0),
        ([*range(10)], 3),
    ],
)
def test_the_digest_is_that_of_a_store_from_nothing(
    tmp_path: Path, earlier: EarlierRows, taken: list[int], shared: int
) -> None:
    numbers = np.array(taken)
    whole = np.empty((len(taken), *SHAPE), np.float16)
    whole[numbers >= 0] = OLD[numbers[numbers >= 0]]
    whole[numbers < 0] = NEW[: np.count_nonzero(numbers < 0)]
    alone = finish_features(written(tmp_path / "alone", whole))
    assert grow(tmp_path / "grown", numbers, earlier, iter([NEW[:2], NEW[2:]])) == (shared, alone)
    with open_features(tmp_path / "grown") as reader:
        np.testing.assert_array_equal(reader.rows(np.arange(len(whole))), whole)


def test_only_rows_of_shards_that_are_left_are_missing(tmp_path: Path) -> None:
    with opened(tmp_path / "grown", 10) as writer:
        taken = np.array([0, -1, 2, 3, 4, 5, 6, 7, -1, 9])
        assert missing_rows(writer.layout, [0, 2], taken).tolist() == [1, 8]
        assert missing_rows(writer.layout, [1], taken).tolist() == []
        writer.write(0, OLD)


@pytest.mark.parametrize("taken", [[*range(10)], [-1, *range(10)]])
def test_damaged_rows_are_named_and_not_handed_out(
    tmp_path: Path, earlier: EarlierRows, taken: list[int]
) -> None:
    file = earlier.file(1)
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedRowsError) as raised, opened(tmp_path / "grown", len(taken)) as writer:
        adopted = list(adopt_shards(writer, range(3), np.array(taken), earlier))
        rest = [shard for shard in range(3) if shard not in adopted]
        list(fill_shards(writer, rest, np.array(taken), earlier, iter([NEW])))
    assert raised.value.rows == range(4, 8)


def test_stores_of_another_layout_share_no_file(tmp_path: Path) -> None:
    compressed = EarlierRows(written(tmp_path / "earlier", OLD, "zstd"), (), {})
    alone = finish_features(written(tmp_path / "alone", OLD))
    assert grow(tmp_path / "grown", np.arange(10), compressed, iter([])) == (0, alone)


def test_where_a_file_can_have_no_other_name_rows_are_copied(
    tmp_path: Path, earlier: EarlierRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert grow(tmp_path / "grown", np.arange(10), earlier, iter([]))[0] == 0
