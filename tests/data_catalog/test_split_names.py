"""Splits are what files and folders say."""

from __future__ import annotations

import pytest

from data_catalog.split_names import known_split, splits_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_val2017", "val"),
        ("valid", "val"),
        ("Validation", "val"),
        ("minival2014", "val"),
        ("trainval35k", "train"),
        ("TRAIN_half", "train"),
        ("image_info_test-dev2017", "test"),
        ("test_coco", "test"),
        ("more_train", "train"),
        ("prwtest", "test"),
        ("interval", None),
        ("retrieval", None),
        ("latest", None),
        ("values", None),
        ("labels", None),
        ("", None),
    ],
)
def test_known_split(name: str, split: str | None) -> None:
    assert known_split(name) == split


@pytest.mark.parametrize(
    ("sources", "splits"),
    [
        (["result.json"], ["train"]),
        (["a.json", "b.json"], ["train", "train"]),
        (["annotations/instances_default.json"], ["train"]),
        (["annotations/instances_holdout.json"], ["holdout"]),
        (["annotations/instances_2017.json"], ["train"]),
        (["train.json", "gallery.json"], ["train", "gallery"]),
        (["train/_annotations.coco.json", "valid/_annotations.coco.json"], ["train", "val"]),
        (["myproject/labels.json"], ["train"]),
        (["myproject/test/labels.json"], ["test"]),
        (["north/coco.json", "south/annotations/instances_default.json"], ["north", "south"]),
        (["annotations/val/person_keypoints_default.json", "annotations/query/x.json"], ["val", "query"]),
    ],
)
def test_splits_of(sources: list[str], splits: list[str]) -> None:
    assert splits_of(sources) == splits
