"""Splits of snapshots as COCO: one JSON of all, or a folder with a JSON per split beside its images.

Keys beyond COCO's carry the other columns of the catalog, which the adapter `coco` reads again with
`columns=catalog`; other programs ignore them, or show them as attributes (FiftyOne).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import IO, Any, Literal

from data_catalog.adapters.coco_catalog import BOX_KEYS, IMAGE_KEYS
from data_catalog.errors import CatalogError
from data_catalog.exchange.parts import (
    Exported,
    ExportPart,
    ImagesMode,
    export_parts,
    place_images,
    rows_of,
)
from data_catalog.row_tables import COORDINATES
from data_catalog.views import View

PERSON = {"id": 1, "name": "person", "supercategory": "person"}
_HELD = frozenset({*IMAGE_KEYS.values(), *BOX_KEYS.values(), *COORDINATES, "ignore"})


@dataclass(frozen=True)
class _Written:
    """A part, and how its images' paths, names and identities begin in the JSON."""

    part: ExportPart
    paths: str
    names: str
    people: str


def export_coco(views: Sequence[View], path: Path, *, roots: Sequence[str] | None = None) -> Exported:
    """Write the views to `path`, whole or not at all.

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
    return Exported(*_write_json(written, path))


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
    homes = {}
    for split in dict.fromkeys(part.split for part in parts):
        file, homes[split] = folder / f"annotations/instances_{split}.json", folder / "images"
        if layout == "fiftyone":
            file, homes[split] = folder / split / "labels.json", folder / split / "data"
        file.parent.mkdir(parents=True, exist_ok=True)
        of_split = [part for part in parts if part.split == split]
        _write_json([_Written(part, part.prefix, part.prefix, part.prefix) for part in of_split], file)

    def place(part: ExportPart) -> tuple[int, dict[str, int]]:
        place_images(part, [homes[part.split] / path for path in part.rel_paths()], images)
        return len(part.view.boxes), {}

    return export_parts(parts, _HELD, place)


def _write_json(written: Sequence[_Written], path: Path) -> tuple[int, int]:
    """Write one file, whole or not at all, and return its numbers of images and annotations."""
    *starts, images = accumulate((len(each.part.view.images) for each in written), initial=0)
    *before, boxes = accumulate((len(each.part.view.boxes) for each in written), initial=0)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write('{"categories": ' + json.dumps([PERSON]) + ',\n"images": [')
            _write(file, chain.from_iterable(map(_images, written, starts)))
            file.write('],\n"annotations": [')
            _write(file, chain.from_iterable(map(_annotations, written, starts, before)))
            file.write("]}\n")
        partial.replace(path)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return images, boxes


def _write(file: IO[str], records: Iterable[dict[str, Any]]) -> None:
    for number, record in enumerate(records):
        file.write((",\n" if number else "\n") + json.dumps(record))


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
    columns = dict.fromkeys(["image_id", *COORDINATES, "ignore", *BOX_KEYS.values()])
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
