"""Images that are there twice: byte for byte, or by what they look like; within a split, and between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from data_catalog.duplicates import (
    NEAR_BITS,
    duplicate_images,
    images_in_both,
    near_duplicate_images,
    near_twins,
)
from data_catalog.errors import CatalogError
from data_catalog.perceptual import difference_hashes
from data_catalog.views import View


def test_duplicates_between_datasets(prw_root: Path, ingest_into: Any) -> None:
    tables = {
        name: ingest_into(prw_root, "prw", name=name).table("images", ["image_id", "split", "sha256"])
        for name in ("mine", "theirs")
    }
    found = {finding.code: finding for finding in duplicate_images(tables)}
    assert found["image_in_two_splits"].count == len(tables["mine"])
    assert found["image_in_two_splits"].level == "warning"
    assert "mine/train/" in found["image_in_two_splits"].message
    assert found["image_twice"].count == 0


def test_test_images_among_training_images_are_found(prw_root: Path, ingest_into: Any) -> None:
    mine, theirs = (ingest_into(prw_root, "prw", name=name) for name in ("mine", "theirs"))
    training = [View(mine, "train"), View(theirs, "train"), View(theirs, "test")]
    shared = images_in_both(training, [View(mine, "test")])
    names = View(mine, "test").images["image_id"].to_pylist()
    assert shared.column_names == ["training", "training_image", "test", "test_image"]
    assert shared["test_image"].to_pylist() == shared["training_image"].to_pylist() == names
    assert set(shared["training"].to_pylist()) == {"theirs/test"}
    assert set(shared["test"].to_pylist()) == {"mine/test"}
    assert len(images_in_both(training[:2], [View(mine, "test")])) == 0 == len(images_in_both([], []))
    blind = ingest_into(prw_root, "prw", images=False)
    with pytest.raises(CatalogError, match="made without images"):
        images_in_both([View(blind, "train")], [View(mine, "test")])


def test_near_duplicates_survive_a_new_encoding(tmp_path: Path) -> None:
    paths = {}
    for index in range(3):  # large shapes: a hash of 8x8 cells sees no others
        ramp = np.add.outer(np.arange(64) * (index - 1), np.arange(96) * (2 - index)) % 200
        paths[f"{index}"] = tmp_path / f"{index}.jpg"
        Image.fromarray(ramp.astype(np.uint8)).convert("RGB").save(paths[f"{index}"], quality=95)
    paths["copy"] = tmp_path / "copy.jpg"
    Image.open(paths["0"]).resize((192, 128)).save(paths["copy"], quality=60)
    hashes = difference_hashes(paths).of
    images = {
        "a": pa.table({"image_id": ["0", "1", "2"], "split": ["train"] * 3}),
        "b": pa.table({"image_id": ["copy"], "split": ["test"]}),
    }
    by_dataset = {name: [hashes[image] for image in t["image_id"].to_pylist()] for name, t in images.items()}
    between, within = near_duplicate_images(images, by_dataset)
    assert (between.count, within.count) == (2, 0)
    assert "a/train/0 = b/test/copy" in between.message


@pytest.mark.parametrize("size", [0, 1, 90, 700])
def test_twins_are_those_of_brute_force(size: int) -> None:
    rng = np.random.default_rng(5)
    base = rng.integers(0, 1 << 63, max(size // 3, 1)).tolist()
    chosen = [
        base[k % len(base)] ^ sum(1 << int(bit) for bit in rng.choice(63, k % 6, replace=False))
        for k in range(size)
    ]
    hashes, place = np.array(chosen, np.uint64), rng.integers(0, 3, size)
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= NEAR_BITS
    np.fill_diagonal(near, False)
    same = place[:, None] == place
    twins = near_twins(hashes, place)
    for found, expected in ((twins.in_place, near & same), (twins.elsewhere, near & ~same)):
        first = [int(np.flatnonzero(row)[0]) if row.any() else -1 for row in expected]
        assert found.tolist() == first


def test_frames_of_a_video_are_counted_not_paired() -> None:
    hashes, place = np.full(3000, 7, np.uint64), np.arange(3000) % 2
    twins = near_twins(hashes, place)
    assert (twins.elsewhere >= 0).all() and (twins.in_place >= 0).all()
