"""WIDER Pedestrian challenge, 2018 and 2019: one line of numbers per image, ignore regions in files of their
own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_catalog.adapters.options import folder_option
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.errors import CatalogError
from data_catalog.files import image_files, numbered_lines, path_fault, plain_name, walk
from data_catalog.ids import number as as_number
from data_catalog.ids import whole
from data_catalog.image_lookup import ImageLookup, SplitImages
from data_catalog.published import LOESCH_2019, Published
from data_catalog.rows import Rows, xywh_corners
from data_catalog.schema import INVALID

SPLITS = ("train", "val")
LAYOUTS = ("train_annotations.txt and val_annotations.txt, in the root or in its folders",)
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
    values: tuple[float, ...]


class WiderPedestrian:
    """2018: `name (class x y w h)*`; 2019: `name (x y w h)*` and other names. Ignore files: `name (x y w
    h)*`.

    Boxes are 0-based. A line with only a name is an image without people.
    """

    name = "wider-pedestrian"
    version = 2
    marks = ("train_annotations.txt", "val_annotations.txt", "pedestrian_ignore_part_train.txt")
    published = (ICIP_2019,)
    options: Mapping[str, str] = {
        "train": "annotation file of train (default train_annotations.txt)",
        "val": "annotation file of val (default val_annotations.txt)",
        "images_train": "folder of train's images",
        "images_val": "folder of val's images",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        files = walk(root)
        units = []
        images: set[str] = set()
        for split in SPLITS:
            source = _annotation_file(root, files, split, options)
            if source is None:
                continue
            ignored = _named(files, f"pedestrian_ignore_part_{split}.txt")
            found = _images(root, split, options)
            images.update(found.paths)
            places = (found.folder, _edition(root / source), found.elsewhere())
            units.append(Unit(source, split, also=(ignored,) if ignored else (), parameters=places))
        if not units:
            raise _refusal(root, files)
        editions = {unit.parameters[1] for unit in units}
        edition = " and ".join(sorted(editions))
        expected = FULL_SIZE if edition == "2018" else {}
        return Layout(
            tuple(units),
            images=tuple(sorted(images)),
            edition=edition,
            expected=expected,
        )

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        edition = unit.parameters[1]
        images = _images(root, unit.split, options)
        width = 5 if edition == "2018" else 4
        names: set[str] = set()
        for line in _lines(root / unit.source, rows):
            if len(line.values) % width:
                detail = f"{len(line.values)} numbers, not {width} per box: {line.name}"
                rows.reject(INVALID, "row_unreadable", detail, line.number, line.name)
                continue
            if line.name in names:
                rows.reject(INVALID, "image_twice", "its image already has a line", line.number, line.name)
                continue
            names.add(line.name)
            rows.images([line.name], images.find(line.name) or images.usual(line.name), unit.split)
            _add_people(rows, line, unit.split, width)
        yield rows
        for source in unit.also:
            yield _ignored(root, source, unit.split, names)


def _annotation_file(root: Path, files: Sequence[str], split: str, options: Options) -> str | None:
    given = options.get(split)
    if given is None:
        return _named(files, f"{split}_annotations.txt")
    source = plain_name(given)
    if path_fault(source) is not None or not (root / source).is_file():
        raise CatalogError(f"option {split}={given!r}: this file does not exist under {root}")
    return source


def _named(files: Sequence[str], name: str) -> str | None:
    """The file of that name, in any case, in the root or else in a folder of it."""
    same = [path for path in files if path.rpartition("/")[2].lower() == name and path.count("/") <= 1]
    return min(same, key=lambda path: path.count("/"), default=None)


def _refusal(root: Path, files: Sequence[str]) -> CatalogError:
    texts = [path for path in files if path.lower().endswith(".txt")]
    nearest = (
        f"{texts[0]}; name other files with the options train and val" if texts else what_is_there(files)
    )
    return refusal(root, "WIDER Pedestrian dataset", LAYOUTS, nearest)


def _images(root: Path, split: str, options: Options) -> SplitImages:
    """A split's images: those of its folder, or else of the whole root."""
    option = f"images_{split}"
    candidates = [split, f"{split}_new", f"images/{split}", f"Images/{split}", "images", "Images"]
    if option in options:
        candidates = [folder_option(options, option, "")]
    folder = next((each for each in candidates if (root / each).is_dir()), candidates[0])
    found = image_files(root, folder, recursive=True)
    if not found and option not in options:
        found = image_files(root, "", recursive=True)
    return SplitImages(ImageLookup(found), folder, split)


def _edition(path: Path) -> str:
    """2018 or 2019, by the names of images and the count of numbers per line."""
    lines = list(_lines(path, Rows(path.name)))
    named_as_2019 = sum(line.name.startswith(PREFIXES_2019) for line in lines)
    fives = sum(len(line.values) % 5 == 0 for line in lines)
    fours = sum(len(line.values) % 4 == 0 for line in lines)
    return "2019" if named_as_2019 * 2 > len(lines) and fours >= fives else "2018"


def _lines(path: Path, rows: Rows) -> Iterator[_Line]:
    for number, text in numbered_lines(path):
        name, *parts = text.split()
        name = plain_name(name)
        fault = path_fault(name)
        if fault is not None:
            rows.reject(INVALID, "row_unreadable", f"{fault}: {name[:80]!r}", number)
            continue
        try:
            values = tuple(as_number(part) for part in parts)
        except ValueError:
            rows.reject(INVALID, "row_unreadable", f"not numbers: {text[:80]!r}", number)
            continue
        if any(abs(value) > 1 << 40 for value in values):
            rows.reject(INVALID, "row_unreadable", f"a number out of range: {text[:80]!r}", number)
        else:
            yield _Line(number, name, values)


def _class(value: float) -> int | float:
    """A class as a whole number, where it is one."""
    try:
        return whole(value)
    except ValueError:
        return value


def _add_people(rows: Rows, line: _Line, split: str, width: int) -> None:
    values = np.array(line.values, np.float64).reshape(-1, width)
    kinds = [_class(value) for value in values[:, 0].tolist()] if width == 5 else [1] * len(values)
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
        category=[CATEGORIES[int(kinds[index])] for index in taken.tolist()],
        category_raw=[kinds[index] for index in taken.tolist()],
    )


def _ignored(root: Path, source: str, split: str, names: set[str]) -> Rows:
    rows = Rows(source)
    seen: set[str] = set()
    for line in _lines(root / source, rows):
        if len(line.values) % 4:
            detail = f"{len(line.values)} numbers, not 4 per region: {line.name}"
            rows.reject(INVALID, "row_unreadable", detail, line.number, line.name)
        elif line.name not in names or line.name in seen:
            detail = f"{line.name} is not among the images, or appears twice"
            rows.reject(INVALID, "image_unknown", detail, line.number, line.name)
        else:
            seen.add(line.name)
            values = np.array(line.values, np.float64).reshape(-1, 4)
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
