"""Confirmed shots as a dataset with identities, which `datasets ingest --adapter coco` takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.exchange.coco import PERSON
from flows.errors import ConfigError
from flows.search.index import Index
from flows.search.judgements import Judgements
from flows.search.pictures import scene_of
from personsearch_core.errors import PersonSearchError
from storage import durable
from storage.digests import digest_file
from storage.folders import whole_folder

ANNOTATIONS = "annotations"
IMAGES = "images"
SPLIT = "train"
_Scene = tuple[int, int]
"""(source, frame), -1 for the frame of an image."""


@dataclass(frozen=True)
class ExportedShots:
    """What was written, and one message per shot that could not be."""

    people: int
    shots: int
    images: int
    left_out: tuple[str, ...]


@dataclass
class _Content:
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


def export_confirmed(index: Index, judgements: Judgements, folder: Path) -> ExportedShots:
    """Write all confirmed shots as COCO: `images/`, and `annotations/train.json` with `person_id`.

    Images are copied, frames of videos written as PNG. All other people whom the index found in these scenes
    are included with unknown identities, so that a detector does not learn to overlook them. An earlier
    export in the folder is replaced, whole or not at all.

    Raises
    ------
    ConfigError
        If no match is confirmed, or the folder holds something else.
    """
    _require_place(folder)
    names, left_out = _confirmed(index, judgements)
    durable.make_folder(folder.absolute().parent)
    with whole_folder(folder) as partial:
        content = _write_images(index, names, partial / IMAGES, left_out)
        shots = [each["person_id"] for each in content.annotations if each["person_id"] is not None]
        if not shots:
            raise ConfigError(f"none of the confirmed scenes can be read: {left_out[0]}")
        (partial / ANNOTATIONS).mkdir()
        body = {"categories": [PERSON], "images": content.images, "annotations": content.annotations}
        text = json.dumps(body, ensure_ascii=False, indent=1)
        (partial / ANNOTATIONS / f"{SPLIT}.json").write_text(text, encoding="utf-8")
    return ExportedShots(len(set(shots)), len(shots), len(content.images), tuple(left_out))


def _confirmed(index: Index, judgements: Judgements) -> tuple[dict[int, str], list[str]]:
    """The person of each confirmed row, and what has to be left out. Raises ConfigError if nothing is."""
    names: dict[int, str] = {}
    left_out: list[str] = []
    for person in judgements.names():
        judged = judgements.of(index, person)
        for row in judged.confirmed:
            if names.setdefault(row, person) != person:
                left_out.append(f"row {row} for {person}: it is confirmed for {names[row]}, too")
        if judged.missing:
            left_out.append(f"{judged.missing} of {person}: not in the index")
    if not names:
        raise ConfigError(f"{judgements.file}: no match is confirmed, so there is nothing to export")
    return names, left_out


def _write_images(index: Index, names: Mapping[int, str], images: Path, left_out: list[str]) -> _Content:
    source = index.table["source"].to_numpy()
    frame = index.table["frame"].fill_null(-1).to_numpy()
    images.mkdir()
    content = _Content()
    for scene in sorted({(int(source[row]), int(frame[row])) for row in names}):
        rows = np.flatnonzero((source == scene[0]) & (frame == scene[1])).tolist()
        try:
            written = _write_image(index, scene, rows[0], images)
        except (PersonSearchError, ConfigError, OSError) as error:
            left_out.append(str(error))
            continue
        _annotate(index, content, written, rows, names)
    return content


def _write_image(index: Index, scene: _Scene, row: int, images: Path) -> dict[str, Any]:
    """Copy an image or write a frame, and describe it."""
    path = index.path(row)
    digest = index.sources["sha256"][scene[0]].as_py()
    if digest_file(path) != digest:
        raise ConfigError(f"{path} has changed since it was indexed: update the index")
    picture = scene_of(index, row)
    if scene[1] < 0:
        name = f"{digest[:16]}{path.suffix.lower()}"
        shutil.copyfile(path, images / name)
    else:
        name = f"{digest[:16]}_{scene[1]:06d}.png"
        picture.save(images / name)
    return {"file_name": name, "width": picture.width, "height": picture.height}


def _annotate(
    index: Index, content: _Content, image: dict[str, Any], rows: Sequence[int], names: Mapping[int, str]
) -> None:
    camera = index.row(rows[0])["camera"]
    number = len(content.images) + 1
    cam_id = None if camera is None else index.cameras.index(camera) + 1
    content.images.append({"id": number, **image, "cam_id": cam_id})
    for row in rows:
        x1, y1, x2, y2 = index.box(row)
        content.annotations.append(
            {
                "id": len(content.annotations) + 1,
                "image_id": number,
                "category_id": PERSON["id"],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "person_id": names.get(row),
            }
        )


def _require_place(folder: Path) -> None:
    """Raise ConfigError if the folder holds anything but an export."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder")
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        is_export = names == {IMAGES, ANNOTATIONS} and (folder / ANNOTATIONS / f"{SPLIT}.json").is_file()
        if names and not is_export:
            raise ConfigError(f"{folder} holds files that are not of an export: name a new or empty folder")
