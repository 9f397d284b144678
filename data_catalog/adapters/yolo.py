"""YOLO text labels: one file an image, class and normalised centre, width and height a line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import image_files, need_files, path_fault, read_text
from data_catalog.images import Unreadable, image_size
from data_catalog.rows import Rows
from data_catalog.schema import EXCLUDED, INVALID

_KNOWN_SPLITS = {
    "train": re.compile(r"train(ing)?[-_]?[0-9]*"),
    "val": re.compile(r"(val|valid|validation)[-_]?[0-9]*"),
    "test": re.compile(r"test.*"),
}


class Yolo:
    """`images/<split>/NAME.jpg` with `labels/<split>/NAME.txt`, or the same without splits.

    Folders such as `valid` and `val2017` are val, `train2017` is train and `test-dev` test; any other folder
    is a split of its own name, and images in none are train. An image without a label file has nobody in it.
    """

    name = "yolo"
    version = 3
    needs_images = True  # labels are fractions of the images' sizes
    options: Mapping[str, str] = {
        "images": "folder of images (default images)",
        "labels": "folder of labels (default labels)",
        "classes": "numbers of the classes that are people (default 0)",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        images, labels = _folders(options)
        need_files(root, (images, labels), "YOLO dataset")
        _classes(options)
        units: list[Unit] = []
        bare: dict[tuple[str, str], list[str]] = {}
        for path in image_files(root, images, recursive=True):
            inside = PurePosixPath(path).relative_to(images)
            split = _split_of(inside.parts[0]) if len(inside.parts) > 1 else "train"
            source = str(PurePosixPath(labels) / inside.with_suffix(".txt"))
            if (root / source).is_file():
                units.append(Unit(source, split, images=(path,)))
            else:
                bare.setdefault((path.rpartition("/")[0], split), []).append(path)
        units += [
            Unit(folder, split, tuple(paths), has_file=False) for (folder, split), paths in bare.items()
        ]
        _check_labels(root, labels, {unit.source for unit in units})
        return Layout(tuple(units))

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        folder = _folders(options)[0]
        ids = [str(PurePosixPath(path).relative_to(folder)) for path in unit.images]
        rows.images(ids, list(unit.images), unit.split)
        if unit.has_file:
            _read_labels(rows, root, unit, ids[0], _classes(options))
        yield rows


def _split_of(folder: str) -> str:
    """The split that a folder's name means, or the name itself: what may be a test is not taken for train."""
    plain = folder.lower()
    return next((split for split, names in _KNOWN_SPLITS.items() if names.fullmatch(plain)), folder)


def _folders(options: Options) -> tuple[str, str]:
    names = [options.get(name, name) for name in ("images", "labels")]
    for name in names:
        if path_fault(name):
            raise CatalogError(f"option images or labels: {path_fault(name)}: {name!r}")
    return names[0], names[1]


def _classes(options: Options) -> frozenset[int]:
    try:
        return frozenset(int(part) for part in options.get("classes", "0").split(","))
    except ValueError as error:
        raise CatalogError(f"option classes={options['classes']!r}: give numbers such as 0,1") from error


def _check_labels(root: Path, labels: str, known: set[str]) -> None:
    found = {path.relative_to(root).as_posix() for path in (root / labels).rglob("*.txt")}
    lost = sorted(found - known - {f"{labels}/classes.txt"})
    if lost:
        raise CatalogError(f"{root}: {len(lost)} label files have no image, such as {lost[0]}")


def _read_labels(rows: Rows, root: Path, unit: Unit, image_id: str, people: frozenset[int]) -> None:
    lines = [(n, line.split()) for n, line in enumerate(read_text(root / unit.source).splitlines(), start=1)]
    taken: list[tuple[int, list[float]]] = []
    for number, parts in lines:
        if not parts:
            continue
        try:
            kind, values = int(parts[0]), [float(part) for part in parts[1:]]
        except ValueError:
            kind, values = -1, []
        if len(values) != 4 or not all(map(math.isfinite, values)):
            detail = f"not 'class cx cy w h': {' '.join(parts)[:80]!r}"
            rows.reject(INVALID, "row_unreadable", detail, number, image_id)
        elif kind not in people:
            rows.reject(EXCLUDED, "not_a_person", f"class {kind}", number, image_id)
        else:
            taken.append((number, values))
    if not taken:
        return
    numbers = [number for number, _ in taken]
    try:
        scale = np.array(image_size(root / unit.images[0]), np.float64)
    except Unreadable as error:  # the ingest moves the image itself to the rejects
        rows.rejects(INVALID, "image_rejected", f"its size is not known: {error}", numbers, image_id)
        return
    centre = np.array([values for _, values in taken])
    low, high = (centre[:, :2] - centre[:, 2:] / 2) * scale, (centre[:, :2] + centre[:, 2:] / 2) * scale
    rows.boxes([image_id] * len(taken), np.hstack([low, high]), unit.split, numbers)
