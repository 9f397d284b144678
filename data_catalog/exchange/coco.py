"""Splits of snapshots as COCO: one JSON of all, or a folder with a JSON per split beside its images.

Keys beyond COCO's carry the other columns of the catalog, which the adapter `coco` reads again with
`columns=catalog`; other programs ignore them, or show them as attributes (FiftyOne).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from data_catalog.errors import CatalogError
from data_catalog.exchange.parts import (
    Exported,
    ExportPart,
    ImagesMode,
    added,
    lost_columns,
    place_images,
    rows_of,
)
from data_catalog.views import View

PERSON = {"id": 1, "name": "person", "supercategory": "person"}
IMAGE_KEYS = {
    "image_name": "image_id",
    "cam_id": "camera_id",
    "split": "split",
    "sequence_id": "sequence_id",
    "frame_index": "frame_index",
}
"""Keys of images beyond COCO's, and their columns."""
BOX_KEYS = {"source_category": "category"} | {
    name: name
    for name in (
        *("box_id", "category_raw", "ignore_reason", "person_id", "person_id_raw", "person_scope"),
        *("visibility", "visible_x1", "visible_y1", "visible_x2", "visible_y2", "hard"),
    )
}
"""Keys of annotations beyond COCO's, and their columns."""
_HELD = frozenset({*IMAGE_KEYS.values(), *BOX_KEYS.values(), "x1", "y1", "x2", "y2", "ignore"})


@dataclass(frozen=True)
class _Written:
    """A part, and how its images' paths, names and identities begin in the JSON."""

    part: ExportPart
    paths: str
    names: str
    people: str


def export_coco(views: Sequence[View], path: Path, *, roots: Sequence[str] | None = None) -> tuple[int, int]:
    """Write the views to `path`, whole or not at all, and return the numbers of images and annotations.

    Ignore regions become `iscrowd`. Identities go to `person_id` as `<dataset>/<identity>`, so that those of
    different datasets stay apart; `image_name` is the image's name in the catalog. `roots` are put before the
    paths of each view's images.

    Raises:
        CatalogError: when the file cannot be written.
    """
    prefixes = [f"{root.rstrip('/')}/" for root in roots] if roots is not None else [""] * len(views)
    written = [
        _Written(ExportPart(view), prefix, "", f"{view.snapshot.name}/")
        for view, prefix in zip(views, prefixes, strict=True)
    ]
    return _write_json(written, path)


def export_coco_folder(
    parts: Sequence[ExportPart],
    folder: Path,
    images: ImagesMode,
    *,
    layout: Literal["coco", "fiftyone"] = "coco",
) -> Exported:
    """Write `annotations/instances_SPLIT.json` beside `images/`, or `SPLIT/labels.json` beside `SPLIT/data/`
    as FiftyOne has it, into an empty folder.

    Raises:
        CatalogError: when an image is missing or a file cannot be written.
    """
    lost: dict[str, int] = {}
    boxes = 0
    for split in dict.fromkeys(part.split for part in parts):
        of_split = [part for part in parts if part.split == split]
        file, home = f"annotations/instances_{split}.json", folder / "images"
        if layout == "fiftyone":
            file, home = f"{split}/labels.json", folder / split / "data"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        written = [_Written(part, part.prefix, part.prefix, part.prefix) for part in of_split]
        boxes += _write_json(written, folder / file)[1]
        for part in of_split:
            place_images(part, [home / path for path in part.rel_paths()], images)
            lost = added(lost, lost_columns(part, _HELD))
    return Exported(sum(len(part.view.images) for part in parts), boxes, lost)


def _write_json(written: Sequence[_Written], path: Path) -> tuple[int, int]:
    """Write one file, whole or not at all, and return its numbers of images and annotations."""
    starts = [0]
    for each in written:
        starts.append(starts[-1] + len(each.part.view.images))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            boxes = _write_parts(file, written, starts)
        partial.replace(path)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return starts[-1], boxes


def _write_parts(file: IO[str], written: Sequence[_Written], starts: Sequence[int]) -> int:
    """Write the JSON and return the number of annotations."""
    boxes = 0
    file.write('{"categories": ' + json.dumps([PERSON]) + ',\n"images": [')
    for each, start in zip(written, starts, strict=False):
        _write(file, _images(each, start), first=start == 0)
    file.write('],\n"annotations": [')
    for each, start in zip(written, starts, strict=False):
        _write(file, _annotations(each, start, boxes), first=boxes == 0)
        boxes += len(each.part.view.boxes)
    file.write("]}\n")
    return boxes


def _write(file: IO[str], records: Iterator[dict[str, Any]], *, first: bool) -> None:
    for record in records:
        file.write("\n" if first else ",\n")
        file.write(json.dumps(record))
        first = False


def _images(written: _Written, start: int) -> Iterator[dict[str, Any]]:
    view = written.part.view
    columns = ["rel_path", "width", "height", *IMAGE_KEYS.values()]
    for number, image in enumerate(rows_of(view.images, columns), start=start + 1):
        image["image_id"] = written.names + image["image_id"]
        yield {
            "id": number,
            "file_name": written.paths + image["rel_path"],
            "width": image["width"],
            "height": image["height"],
            **{key: image[column] for key, column in IMAGE_KEYS.items()},
            "dataset": view.snapshot.name,
        }


def _annotations(written: _Written, start: int, before: int) -> Iterator[dict[str, Any]]:
    view = written.part.view
    names = view.images["image_id"].to_pylist()
    numbers = {name: number for number, name in enumerate(names, start=start + 1)}
    columns = dict.fromkeys(["image_id", "x1", "y1", "x2", "y2", "ignore", *BOX_KEYS.values()])
    for number, box in enumerate(rows_of(view.boxes, list(columns)), start=before + 1):
        width, height = box["x2"] - box["x1"], box["y2"] - box["y1"]
        person = box["person_id"]
        box["person_id"] = None if person is None else written.people + person
        box["box_id"] = written.names + box["box_id"]
        yield {
            "id": number,
            "image_id": numbers[box["image_id"]],
            "category_id": PERSON["id"],
            "bbox": [box["x1"], box["y1"], width, height],
            "area": width * height,
            "iscrowd": int(box["ignore"]),
            **{key: box[column] for key, column in BOX_KEYS.items()},
        }
