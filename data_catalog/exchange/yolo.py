"""Splits of snapshots in Ultralytics' YOLO layout: `images/SPLIT/` and `labels/SPLIT/` with a data.yaml."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.yolo_files import FolderNames, split_of_folders
from data_catalog.errors import CatalogError
from data_catalog.exchange.parts import (
    Exported,
    ExportPart,
    ImagesMode,
    export_parts,
    place_images,
    write_text,
)
from data_catalog.row_tables import COORDINATES, corners

_FOLDERS = FolderNames(("images",), ("labels",))
_KEYS = ("train", "val", "test")
"""Splits that data.yaml has keys for."""
_HELD = frozenset({*COORDINATES, "ignore"})
LEFT_OUT, CLIPPED = "ignore regions, left out", "boxes beyond their image, clipped to it"


def export_yolo(parts: Sequence[ExportPart], folder: Path, images: ImagesMode) -> Exported:
    """Write images, labels and data.yaml into an empty folder; class 0 is `person`.

    YOLO's boxes lie within their image, so boxes are clipped to it. Ignore regions, which it does not have,
    are left out.

    Raises:
        CatalogError: when an image's size is not known or its file is missing, when two images would share a
            label, or a file cannot be written.
    """

    def write(part: ExportPart) -> tuple[int, dict[str, int]]:
        paths = _paths(part)
        boxes, lost = _write_labels(part, paths, folder / "labels")
        place_images(part, [folder / "images" / path for path in paths], images)
        return boxes, lost | _lost_names(part, paths)

    exported = export_parts(parts, _HELD, write)
    _write_config(folder, [part.split for part in parts])
    return exported


def _paths(part: ExportPart) -> list[str]:
    """`SPLIT/NAME` of each image; folders called images or labels are left out of the name, since a label's
    path is found by these words.
    """
    words = {*_FOLDERS.images, *_FOLDERS.labels}
    found: dict[str, str] = {}
    paths = []
    for rel_path in part.rel_paths():
        *above, name = rel_path.split("/")
        path = "/".join([part.split, *(each for each in above if each.lower() not in words), name])
        label = PurePosixPath(path).with_suffix("").as_posix()
        if label in found:
            raise CatalogError(
                f"{part.view.snapshot.name}: images {found[label]} and {rel_path} would share the label file "
                f"labels/{label}.txt: YOLO cannot hold both; export COCO"
            )
        found[label] = rel_path
        paths.append(path)
    return paths


def _write_labels(part: ExportPart, paths: Sequence[str], folder: Path) -> tuple[int, dict[str, int]]:
    """Write a label file per image; the number of rows, and what could not be held."""
    images, boxes = part.view.images, part.view.boxes
    sizes = np.stack([images[name].fill_null(0).to_numpy() for name in ("width", "height")], axis=1)
    unknown = int((sizes <= 0).any(axis=1).sum())
    if unknown:
        raise CatalogError(
            f"{part.view.snapshot.name}: the sizes of {unknown:,} images are not known, and "
            "YOLO's boxes are fractions of them: ingest the dataset with its images"
        )
    at = pc.index_in(boxes["image_id"], value_set=images["image_id"]).to_numpy()
    given = corners(boxes).astype(np.float64)
    limits = np.tile(sizes[at], 2).astype(np.float64)
    clipped = np.clip(given, 0, limits)
    ignored = boxes["ignore"].to_numpy()
    taken = np.flatnonzero(~ignored)
    fractions = (clipped / limits)[taken]
    centres, sides = (fractions[:, :2] + fractions[:, 2:]) / 2, fractions[:, 2:] - fractions[:, :2]
    rows = np.hstack([centres, sides])
    stops = np.cumsum(np.bincount(at[taken], minlength=len(paths)))  # boxes are in the order of images
    for path, of_image in zip(paths, np.split(rows, stops[:-1]), strict=True):
        lines = (" ".join(["0", *map(repr, row)]) for row in of_image.tolist())
        write_text(folder / PurePosixPath(path).with_suffix(".txt"), lines)
    changed = (clipped != given).any(axis=1)[taken]
    return len(taken), {LEFT_OUT: int(ignored.sum()), CLIPPED: int(changed.sum())}


def _lost_names(part: ExportPart, paths: Sequence[str]) -> dict[str, int]:
    """Names of images become their paths; a split may be read as another."""
    split = split_of_folders(f"images/{part.split}/x.jpg", _FOLDERS)
    renamed = pc.not_equal(part.view.images["image_id"].cast(pa.string()), pa.array(paths))
    return {
        "names of images, which become paths": int(pc.sum(renamed).as_py() or 0),
        f"images of split {part.split!r}, which YOLO reads as {split!r}": (
            len(part.view.images) if split != part.split else 0
        ),
    }


def _write_config(folder: Path, splits: Sequence[str]) -> None:
    known = [f"{split}: images/{split}" for split in _KEYS if split in splits]
    others = [
        f"# not a split of YOLO's: images/{split}" for split in dict.fromkeys(splits) if split not in _KEYS
    ]
    write_text(folder / "data.yaml", [*known, *others, "names:", f"  0: {json.dumps('person')}"])
