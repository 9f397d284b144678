"""Splits of one or more snapshots as one COCO JSON, so that any other tool can train on their union."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_catalog.errors import CatalogError
from data_catalog.views import View

PERSON = {"id": 1, "name": "person", "supercategory": "person"}


def export_coco(views: Sequence[View], path: Path, *, roots: Sequence[str] | None = None) -> tuple[int, int]:
    """Write the views to `path`, whole or not at all, and return the numbers of images and annotations.

    Ignore regions become `iscrowd`. Identities go to `person_id` as `<dataset>/<identity>`, so that those of
    different datasets stay apart; `image_name` is the image's name in the catalog. `roots` are put before the
    paths of each view's images.

    Raises:
        CatalogError: when the file cannot be written.
    """
    prefixes = [f"{root.rstrip('/')}/" for root in roots] if roots is not None else [""] * len(views)
    starts = [0]
    for view in views:
        starts.append(starts[-1] + len(view.images))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            boxes = _write_views(file, views, prefixes, starts)
        partial.replace(path)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return starts[-1], boxes


def _write_views(file: Any, views: Sequence[View], prefixes: Sequence[str], starts: Sequence[int]) -> int:
    """Write the JSON and return the number of annotations."""
    boxes = 0
    file.write('{"categories": ' + json.dumps([PERSON]) + ',\n"images": [')
    for view, prefix, start in zip(views, prefixes, starts, strict=False):
        _write(file, _images(view, prefix, start), first=start == 0)
    file.write('],\n"annotations": [')
    for view, start in zip(views, starts, strict=False):
        _write(file, _annotations(view, start, boxes), first=boxes == 0)
        boxes += len(view.boxes)
    file.write("]}\n")
    return boxes


def _write(file: Any, records: Iterator[dict[str, Any]], *, first: bool) -> None:
    for record in records:
        file.write("\n" if first else ",\n")
        file.write(json.dumps(record))
        first = False


def _images(view: View, prefix: str, start: int) -> Iterator[dict[str, Any]]:
    columns = ["image_id", "rel_path", "width", "height", "camera_id"]
    for number, image in enumerate(_rows(view.images.select(columns)), start=start + 1):
        yield {
            "id": number,
            "file_name": prefix + image["rel_path"],
            "width": image["width"],
            "height": image["height"],
            "cam_id": image["camera_id"],
            "image_name": image["image_id"],
            "dataset": view.snapshot.name,
        }


def _annotations(view: View, start: int, before: int) -> Iterator[dict[str, Any]]:
    names = view.images["image_id"].to_pylist()
    numbers = {name: number for number, name in enumerate(names, start=start + 1)}
    dataset = view.snapshot.name
    columns = ["image_id", "x1", "y1", "x2", "y2", "ignore", "person_id", "category"]
    for number, box in enumerate(_rows(view.boxes.select(columns)), start=before + 1):
        width, height = box["x2"] - box["x1"], box["y2"] - box["y1"]
        person = box["person_id"]
        yield {
            "id": number,
            "image_id": numbers[box["image_id"]],
            "category_id": PERSON["id"],
            "bbox": [box["x1"], box["y1"], width, height],
            "area": width * height,
            "iscrowd": int(box["ignore"]),
            "person_id": None if person is None else f"{dataset}/{person}",
            "source_category": box["category"],
        }


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=16_384):
        yield from batch.to_pylist()
