"""WIDER Pedestrian challenge, 2018 and 2019: one line of integers an image, ignore regions in files of their
own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import image_files, path_fault, read_text
from data_catalog.published import LOESCH_2019, Published
from data_catalog.rows import Rows, xywh_corners
from data_catalog.schema import INVALID

SPLITS = ("train", "val")
CATEGORIES = {1: "person", 2: "cyclist"}
PREFIXES_2019 = ("ad", "sur")
FULL_SIZE = {"train.images": 11_500, "train.people": 46_513, "val.images": 5_000, "val.people": 20_052}
ICIP_2019 = Published(
    LOESCH_2019,
    {"train.images": 11_500, "train.people": 46_513},
    {"train.people": "the paper uses the edition of 2018; that of 2019 has other images and boxes"},
)


@dataclass(frozen=True)
class _Line:
    number: int
    name: str
    values: tuple[int, ...]


class WiderPedestrian:
    """2018: `name (class x y w h)*`; 2019: `name (x y w h)*` and other names. Ignore files: `name (x y w
    h)*`.

    Boxes are 0-based. A line that holds a name alone is an image without people.
    """

    name = "wider-pedestrian"
    version = 1
    published = (ICIP_2019,)
    options: Mapping[str, str] = {
        "train": "annotation file of train (default train_annotations.txt)",
        "val": "annotation file of val (default val_annotations.txt)",
        "images_train": "folder of train's images",
        "images_val": "folder of val's images",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        if not root.is_dir():
            raise CatalogError(f"{root}: no such folder")
        units = []
        images: set[str] = set()
        for split in SPLITS:
            source = options.get(split, f"{split}_annotations.txt")
            if path_fault(source) is None and (root / source).is_file():
                ignored = f"pedestrian_ignore_part_{split}.txt"
                also = (ignored,) if (root / ignored).is_file() else ()
                folder = _image_folder(root, split, options)
                images.update(image_files(root, folder))
                units.append(Unit(source, split, also=also, parameters=(folder, _edition(root / source))))
            elif split in options:
                raise CatalogError(f"option {split}={source!r}: no such file under {root}")
        if not units:
            raise CatalogError(
                f"{root} is no WIDER Pedestrian dataset: train_annotations.txt or val_annotations.txt not "
                "found; other names can be given by the options train and val"
            )
        editions = {unit.parameters[1] for unit in units}
        edition = " and ".join(sorted(editions))
        expected = FULL_SIZE if edition == "2018" else {}
        return Layout(tuple(units), images=tuple(sorted(images)), edition=edition, expected=expected)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        folder, edition = unit.parameters
        width = 5 if edition == "2018" else 4
        names: set[str] = set()
        for line in _lines(root / unit.source, rows):
            if len(line.values) % width:
                detail = f"{len(line.values)} numbers, not {width} a box: {line.name}"
                rows.reject(INVALID, "row_unreadable", detail, line.number, line.name)
                continue
            if line.name in names:
                rows.reject(INVALID, "image_twice", "its image has a line already", line.number, line.name)
                continue
            names.add(line.name)
            rows.images([line.name], f"{folder}/{line.name}", unit.split)
            _add_people(rows, line, unit.split, width)
        yield rows
        for source in unit.also:
            yield _ignored(root, source, unit.split, names)


def _image_folder(root: Path, split: str, options: Options) -> str:
    given = options.get(f"images_{split}")
    if given is not None:
        if path_fault(given):
            raise CatalogError(f"option images_{split}={given!r}: {path_fault(given)}")
        return given
    candidates = (split, f"{split}_new", f"images/{split}", f"Images/{split}", "images", "Images")
    return next((folder for folder in candidates if (root / folder).is_dir()), split)


def _edition(path: Path) -> str:
    """2018 or 2019, by the names of images and the count of numbers a line."""
    lines = list(_lines(path, Rows(path.name)))
    named_as_2019 = sum(line.name.startswith(PREFIXES_2019) for line in lines)
    fives = sum(len(line.values) % 5 == 0 for line in lines)
    fours = sum(len(line.values) % 4 == 0 for line in lines)
    return "2019" if named_as_2019 * 2 > len(lines) and fours >= fives else "2018"


def _lines(path: Path, rows: Rows) -> Iterator[_Line]:
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        name, *parts = text.split() or [""]
        if not name:
            continue
        try:
            values = tuple(int(part) for part in parts)
        except ValueError:
            rows.reject(INVALID, "row_unreadable", f"not whole numbers: {text[:80]!r}", number)
            continue
        fault = path_fault(name)
        if fault is not None:
            rows.reject(INVALID, "row_unreadable", f"{fault}: {name[:80]!r}", number)
        elif any(abs(value) > 1 << 40 for value in values):
            rows.reject(INVALID, "row_unreadable", f"a number out of range: {text[:80]!r}", number)
        else:
            yield _Line(number, name, values)


def _add_people(rows: Rows, line: _Line, split: str, width: int) -> None:
    values = np.array(line.values, np.int64).reshape(-1, width)
    kinds = values[:, 0].tolist() if width == 5 else [1] * len(values)
    known = [kind in CATEGORIES for kind in kinds]
    for index, kind in enumerate(kinds, start=1):
        if kind not in CATEGORIES:
            detail = f"box {index} is of class {kind}"
            rows.reject(INVALID, "class_unknown", detail, line.number, line.name)
    taken = np.flatnonzero(known)
    rows.boxes(
        [line.name] * len(taken),
        xywh_corners(values[taken, -4:]),
        split,
        [line.number] * len(taken),
        box_id=[f"{line.name}#{index + 1}" for index in taken.tolist()],
        category=[CATEGORIES[kinds[index]] for index in taken.tolist()],
        category_raw=[kinds[index] for index in taken.tolist()],
    )


def _ignored(root: Path, source: str, split: str, names: set[str]) -> Rows:
    rows = Rows(source)
    seen: set[str] = set()
    for line in _lines(root / source, rows):
        if len(line.values) % 4:
            detail = f"{len(line.values)} numbers, not 4 a region: {line.name}"
            rows.reject(INVALID, "row_unreadable", detail, line.number, line.name)
        elif line.name not in names or line.name in seen:
            detail = f"{line.name} is not among the images, or is there twice"
            rows.reject(INVALID, "image_unknown", detail, line.number, line.name)
        else:
            seen.add(line.name)
            values = np.array(line.values, np.int64).reshape(-1, 4)
            rows.boxes(
                [line.name] * len(values),
                xywh_corners(values),
                split,
                [line.number] * len(values),
                box_id=[f"{line.name}#ignore{index}" for index in range(1, len(values) + 1)],
                category="ignore",
                ignore=True,
                ignore_reason="ignore_file",
            )
    return rows
