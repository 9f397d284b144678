"""Artifacts whose content is written piece by piece: feature stores, which resume and grow, and snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.rows import Rows, to_tables
from data_catalog.snapshot import SnapshotWriter
from storage.feature_store import (
    FeatureWriter,
    RowCodec,
    create_features,
    open_features,
    principal_axes,
    verify_features,
)
from storage.feature_store.layout import ARRAY
from storage.feature_store.metadata import read_layout
from storage.feature_store.shard_files import read_shard
from storage.feature_store.taking_over import EarlierRows, adopt_shards, fill_shards
from storage.manifest import Identity
from tests.crash.bench import Operation, Outcome
from tests.crash.stores import check_store, found, nothing, outcome_of_store, store_of

ROWS, ROW = 40, (4, 8, 8)


FEATURES = Identity(kind="features", version=1, recipe={"roi": 16}, inputs={})


EARLIER, GROWN = (
    Identity(kind="features", version=1, recipe={"codec": "int8", "view": view}, inputs={})
    for view in ("old", "new")
)

TAKEN = np.array([*range(16), *range(16, 20), *[-1] * 4])
"""The rows of GROWN: a whole shard of EARLIER, four rows that have stayed, and four new ones."""


def rows_of(shard: int) -> np.ndarray:
    return np.random.default_rng(shard).standard_normal((16, *ROW)).astype(np.float16)[: ROWS - 16 * shard]


def of_two_directions(shard: int) -> np.ndarray:
    mix = np.array([[1, 0], [1, 1], [0, 1], [2, 1]], np.float32)
    return np.einsum("ck,nkyx->ncyx", mix, rows_of(shard)[:, :2].astype(np.float32)).astype(np.float16)


def prepare_features(folder: Path) -> None:
    """A feature store of three shards of which one is made."""
    store = store_of(folder)
    with store.making(FEATURES) as work:
        writer = create_features(work.path / "features.zarr", ROWS, ROW, rows_per_shard=16)
        writer.write(0, rows_of(0))
        assert writer.complete_shards == (0,)


def resume(folder: Path) -> None:
    with store_of(folder).making(FEATURES) as work:
        if work.made is None:
            with create_features(work.path / "features.zarr", ROWS, ROW, rows_per_shard=16) as writer:
                for shard in sorted({0, 1, 2} - set(writer.complete_shards)):
                    writer.write(16 * shard, rows_of(shard))
            work.commit("features")


def prepare_growth(folder: Path) -> None:
    with store_of(folder).making(EARLIER) as work:
        with encoding_writer(work.path) as writer:
            writer.write(0, earlier_rows())
        work.commit("earlier")


def grow(folder: Path) -> None:
    """Features of a view that has grown: a shard is a link to the earlier one, another takes some rows.

    Rows have fewer channels in the store, and the axes are kept beside them.
    """
    store = store_of(folder)
    with store.making(GROWN) as work:
        if work.made is None:
            earlier = store.find(EARLIER.kind, EARLIER.key)
            assert earlier is not None
            files = {name: entry.sha256 for name, entry in earlier.manifest.files.items()}
            source = EarlierRows(earlier.path, store.trusted(earlier), files)
            with encoding_writer(work.path) as writer:
                missing = sorted({0, 1} - set(writer.complete_shards))
                adopted = list(adopt_shards(writer, missing, TAKEN, source))
                rest = [shard for shard in missing if shard not in adopted]
                list(fill_shards(writer, rest, TAKEN, source, iter([of_two_directions(2)[:4]])))
            work.commit("grown")


def encoding_writer(folder: Path) -> FeatureWriter:
    codec = RowCodec(ROW, np.dtype(np.float16), "int8", principal_axes([of_two_directions(0)], 2))
    return create_features(folder, len(TAKEN), ROW, rows_per_shard=16, codec=codec)


def earlier_rows() -> np.ndarray:
    return np.concatenate([of_two_directions(0), of_two_directions(1)])[: len(TAKEN)]


def check_features(folder: Path) -> list[str]:
    return check_store(folder, "features")


def outcome_of_features(folder: Path) -> Outcome:
    group = found(store_of(folder), "features").path / "features.zarr"
    layout = read_layout(group)
    same = [bool(np.array_equal(read_shard(group / ARRAY, layout, each), rows_of(each))) for each in range(3)]
    return {**outcome_of_store(folder), "rows": same, "damaged": len(verify_features(group))}


def outcome_of_growth(folder: Path) -> Outcome:
    grown = store_of(folder).find(GROWN.kind, GROWN.key)
    assert grown is not None
    with open_features(grown.path) as reader:
        rows = reader.rows(np.arange(len(TAKEN))).astype(np.float32)
    right = np.concatenate([earlier_rows()[:20], of_two_directions(2)[:4]])
    return {
        **outcome_of_store(folder),
        "near": bool((np.abs(rows - right) < 0.05).all()),
        "damaged": len(verify_features(grown.path)),
    }


DESCRIPTION: Mapping[str, Any] = {
    "adapter": "drawn",
    "adapter_version": 1,
    "root_fingerprint": "",
    "counts_expected": {},
    "counts_found": {"boxes": 3},
}


def snapshot(folder: Path) -> None:
    identity = Identity(kind="ingest", version=1, recipe={"dataset": "drawn"}, inputs={})
    with store_of(folder).making(identity) as work:
        if work.made is None:
            rows = Rows("boxes.csv")
            names = [f"{number}.jpg" for number in range(3)]
            for name in names:
                rows.images([name], name, "train")
            rows.boxes(
                names,
                np.array([[0, 0, 10, 20]] * 3, np.float32),
                "train",
                [1, 2, 3],
                person_id=["a", "b", None],
            )
            with SnapshotWriter(work.path, "drawn") as writer:
                writer.write(to_tables([rows]))
                writer.finish(writer.images_and_queries()[1], lambda: DESCRIPTION)
            work.commit("snapshot")


MAKING = (
    Operation("features", prepare_features, resume, check_store, outcome_of_features),
    Operation("growth", prepare_growth, grow, check_features, outcome_of_growth),
    Operation("snapshot", nothing, snapshot, check_store, outcome_of_store),
)
