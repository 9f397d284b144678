"""The community's numbers, and a small exact search problem to vary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from personsearch_core.evaluation import tables
from personsearch_core.evaluation.records import Detections, GalleryLists, GroundTruth, IntArray, Queries


@dataclass(frozen=True, eq=False)
class CuhkSysuOracle:
    detections: Detections
    queries: Queries
    truth: GroundTruth
    lists: GalleryLists
    n_images: int
    expected: dict[str, Any]


@dataclass(frozen=True, eq=False)
class PrwOracle:
    detections: Detections
    queries: Queries
    truth: GroundTruth
    cameras: IntArray
    expected: dict[str, Any]


def protocol_file(shared: Path) -> Path:
    return shared / "data/CUHK-SYSU/annotation/test/train_test/TestG100.mat"


def read_cuhk_sysu(shared: Path) -> CuhkSysuOracle:
    """Reads the protocol by scipy, independently of the project's own reader."""
    folder = shared / "oracles/cuhk_sysu"
    images = tables.Names.of(
        "image", tables.open_images(folder / "images.parquet", camera_id=False).column("image")
    )
    box_table = tables.open_boxes(folder / "boxes.parquet")
    people = tables.Names.of("person", box_table.column("person_id"))
    entries = scipy.io.loadmat(protocol_file(shared))["TestG100"].squeeze()
    rows = [(i, item) for i, entry in enumerate(entries) for item in entry["Gallery"].squeeze()]
    is_positive = np.array([item["idlocate"].size > 0 for _, item in rows])
    boxes = np.zeros((len(rows), 4))
    for row in np.flatnonzero(is_positive):
        boxes[row] = rows[row][1]["idlocate"].astype(np.int64).ravel()
    boxes[:, 2:] += boxes[:, :2]
    names = images.find([str(item["imname"][0]) for _, item in rows])
    lists = GalleryLists.from_rows(np.array([i for i, _ in rows]), names, is_positive, boxes, len(entries))
    return CuhkSysuOracle(
        tables.detections_from(
            tables.open_detections(folder / "detections.parquet", embeddings=True), images
        ),
        tables.queries_from(tables.open_queries(folder / "queries.parquet", person_id=False), images),
        tables.ground_truth_from(box_table, images, people),
        lists,
        len(images),
        json.loads((folder / "expected.json").read_text()),
    )


def read_prw(shared: Path) -> PrwOracle:
    folder = shared / "oracles/prw_mini"
    image_table = tables.open_images(folder / "images.parquet", camera_id=True)
    images = tables.Names.of("image", image_table.column("image"))
    box_table = tables.open_boxes(folder / "boxes.parquet")
    query_table = tables.open_queries(folder / "queries.parquet", person_id=True)
    people = tables.Names.of("person", box_table.column("person_id"), query_table.column("person_id"))
    cameras = np.empty(len(images), np.int64)
    cameras[images.index(image_table, "image")] = image_table.integers("camera_id")
    return PrwOracle(
        tables.detections_from(
            tables.open_detections(folder / "detections.parquet", embeddings=True), images
        ),
        tables.queries_from(query_table, images, people),
        tables.ground_truth_from(box_table, images, people),
        cameras,
        json.loads((folder / "expected.json").read_text()),
    )
