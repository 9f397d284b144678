"""CityPersons (Zhang, Benenson, Schiele, CVPR 2017): people in the images of Cityscapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_catalog.adapters.options import folder_option, names_option, plain
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.errors import CatalogError
from data_catalog.files import image_files, is_image, path_fault, read_bytes, usable, walk
from data_catalog.ids import four_numbers, side
from data_catalog.jsonstream import parse_json
from data_catalog.matfile import only_variable
from data_catalog.rows import Rows, visible_columns, xywh_corners
from data_catalog.schema import INVALID
from data_catalog.split_names import known_split_of_path, split_of

MAT_FILES = {"anno_train.mat": "train", "anno_val.mat": "val"}
JSON_END = "_gtBboxCityPersons.json"
IMAGES, IMAGE_END = "leftImg8bit", "_leftImg8bit.png"
CATEGORIES = {
    0: "ignore",
    1: "pedestrian",
    2: "rider",
    3: "sitting person",
    4: "person (other)",
    5: "person group",
}
"""Classes by number, under the names that Cityscapes' own files give them."""
DEFAULT = "pedestrian"
LAYOUTS = (
    "anno_train.mat or anno_val.mat, in the root or a folder, with leftImg8bit/<split>/<city>/*.png",
    "gtBboxCityPersons/<split>/<city>/*_gtBboxCityPersons.json with the same images",
)
OTHER = ("*gtFine*", "*gtCoarse*", "*leftImg8bit/test/*")
FULL_SIZE = {"train.images": 2_975, "val.images": 500}


class CityPersons:
    """Rows of the .mat files are class, x, y, w, h, instance, and x, y, w, h of the visible part, 0-based.

    As its benchmark does, pedestrians are the people to find; riders, people who sit or have unusual
    postures, groups and what only looks human are ignore regions. Cityscapes' own JSON files hold the same.
    """

    name = "citypersons"
    version = 1
    marks = ("anno_train.mat", "anno_val.mat", "leftImg8bit", "gtBboxCityPersons")
    options: Mapping[str, str] = {
        "images": f"folder of images (default: {IMAGES}, wherever it lies)",
        "categories": "names of the classes that are people to find, others are ignore regions (default "
        f"{DEFAULT}; there are {', '.join(list(CATEGORIES.values())[1:])})",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        _categories(options)
        files = usable(walk(root))
        pictures = _pictures(root, files, options)
        by_stem = {_scene(path): path for path in pictures}
        mats = [path for path in files if PurePosixPath(path).name.lower() in MAT_FILES]
        jsons = [path for path in files if path.endswith(JSON_END)]
        if mats:
            units = _mat_units(root, mats, pictures)
        elif jsons:
            units = [_json_unit(path, by_stem) for path in jsons]
        else:
            raise refusal(root, "CityPersons dataset", LAYOUTS, _nearest(files))
        other = (*OTHER, f"*{JSON_END}") if mats else OTHER
        return Layout(tuple(units), edition="mat" if mats else "json", expected=FULL_SIZE, other=other)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        people = _categories(options)
        folder = folder_option(options, "images", IMAGES)
        if unit.source.endswith(".json"):
            yield _read_json(root, unit, people, folder)
        else:
            yield from _read_mat(root, unit, people, folder)


def _categories(options: Options) -> frozenset[str]:
    wanted = names_option(options, "categories", DEFAULT)
    unknown = sorted(wanted - set(CATEGORIES.values()))
    if unknown:
        there = ", ".join(list(CATEGORIES.values())[1:])
        raise CatalogError(f"option categories: there is no class {unknown[0]!r}; there are {there}")
    return wanted


def _nearest(files: Sequence[str]) -> str:
    for path in files:
        if path.endswith(".json") and "city" in path.lower():
            return f"{path}: for CityPersons as COCO JSON use the adapter coco"
    jsons = [path for path in files if path.endswith(".json")]
    if jsons:
        return f"{jsons[0]}: if it is CityPersons as COCO JSON, use the adapter coco"
    return what_is_there(files)


def _pictures(root: Path, files: Sequence[str], options: Options) -> tuple[str, ...]:
    """Image files: Cityscapes' folder may lie in that of its archive, leftImg8bit_trainvaltest."""
    if "images" in options:
        return image_files(root, folder_option(options, "images", ""), recursive=True)
    return tuple(path for path in files if is_image(path) and IMAGES in path)


def _scene(path: str) -> str:
    """`aachen_000000_000019` of an image's or annotation's name."""
    stem = PurePosixPath(path).name.rpartition(".")[0]
    return stem.removesuffix("_leftImg8bit").removesuffix("_gtBboxCityPersons")


def _mat_units(root: Path, mats: Sequence[str], pictures: Sequence[str]) -> list[Unit]:
    """A unit per .mat file; its images are those of its split, or all where the folders name no split."""
    units: list[Unit] = []
    for path in mats:
        split = MAT_FILES[PurePosixPath(path).name.lower()]
        if any(unit.split == split for unit in units):
            raise CatalogError(f"{root}: {path} appears twice; keep one")
        own = tuple(each for each in pictures if split in [split_of(part) for part in each.split("/")[:-1]])
        units.append(Unit(path, split, images=own or tuple(pictures)))
    return units


def _json_unit(path: str, by_stem: Mapping[str, str]) -> Unit:
    image = by_stem.get(_scene(path))
    missing = ("its image is not there",) if by_stem and image is None else ()
    return Unit(path, known_split_of_path(path), images=(image,) if image else (), parameters=missing)


@dataclass
class _Person:
    kind: str
    row: int
    box: list[float]
    visible: list[float] | None


def _read_mat(root: Path, unit: Unit, people: frozenset[str], folder: str) -> Iterator[Rows]:
    variable, cells = only_variable(root / unit.source)
    if not isinstance(cells, list):
        raise CatalogError(f"{root / unit.source}: {variable!r} is not an array of cells, one per image")
    images = {PurePosixPath(path).name: path for path in unit.images}
    seen: set[str] = set()
    rows = Rows(unit.source)
    first = 1
    for at, cell in enumerate(cells, start=1):
        entry = cell[0] if isinstance(cell, list) and len(cell) == 1 else cell
        values = entry if isinstance(entry, dict) else {}
        name, city, boxes = (values.get(key) for key in ("im_name", "cityname", "bbs"))
        if not isinstance(name, str) or path_fault(name) or "/" in name or name in seen:
            rows.reject(INVALID, "image_unreadable", f"cell {at} has no usable im_name", first)
            continue
        seen.add(name)
        matrix = _matrix(boxes)
        if matrix is None:
            detail = f"cell {at}: bbs is not a matrix of 10 columns (class, box, instance, visible box)"
            rows.reject(INVALID, "image_unreadable", detail, first, name)
            continue
        path = images.get(name) if images else f"{folder}/{unit.split}/{_city(name, city)}/{name}".lstrip("/")
        if path is None:
            detail = f"cell {at}: {name[:80]!r} is not among the images"
            rows.reject(INVALID, "image_missing", detail, first, name)
        else:
            rows.images([name], path, unit.split)
            _add(rows, unit, name, _people_of(rows, matrix, first, name), people)
        first += len(matrix)
        if rows.is_large():
            yield rows
            rows = Rows(unit.source)
    yield rows


def _matrix(value: Any) -> np.ndarray | None:
    """Rows of ten numbers; integer types change from cell to cell, so all become float64."""
    if not isinstance(value, np.ndarray) or (value.size and value.shape[1:] != (10,)):
        return None
    return value.astype(np.float64).reshape(-1, 10)


def _city(name: str, city: Any) -> str:
    usable = isinstance(city, str) and not path_fault(city) and "/" not in city
    return city if usable else name.partition("_")[0]


def _people_of(rows: Rows, matrix: np.ndarray, first: int, image_id: str) -> list[_Person]:
    found = []
    for row, values in enumerate(matrix.tolist(), start=first):
        kind = CATEGORIES.get(values[0])
        if kind is None:
            rows.reject(INVALID, "class_unknown", f"class {values[0]:g}", row, image_id)
        else:
            found.append(_Person(kind, row, values[1:5], values[6:10]))
    return found


def _read_json(root: Path, unit: Unit, people: frozenset[str], folder: str) -> Rows:
    rows = Rows(unit.source)
    path = root / unit.source
    try:
        value = parse_json(read_bytes(path))
        objects = value["objects"]
        if not isinstance(objects, list):
            raise ValueError("its 'objects' are not a list")
    except (ValueError, KeyError, TypeError) as error:
        rows.reject(INVALID, "file_unreadable", f"not a CityPersons file: {str(error)[:80]}", 0)
        return rows
    scene = _scene(unit.source)
    image_id = f"{scene}{IMAGE_END}"
    if unit.parameters:
        rows.reject(INVALID, "image_missing", f"its image {image_id!r} is not there", 0)
        return rows
    image = unit.images[0] if unit.images else f"{folder}/{unit.split}/{_city(scene, None)}/{image_id}"
    width, height = side(value.get("imgWidth")), side(value.get("imgHeight"))
    rows.images([image_id], [image.lstrip("/")], unit.split, width=width, height=height)
    found: list[_Person] = []
    for row, each in enumerate(objects, start=1):
        try:
            found.append(_object(each, row))
        except ValueError as error:
            rows.reject(INVALID, "row_unreadable", f"object {row}: {error}", row, image_id)
    _add(rows, unit, image_id, found, people)
    return rows


def _object(value: Any, row: int) -> _Person:
    label = value.get("label") if isinstance(value, dict) else None
    kind = plain(label) if isinstance(label, str) else None
    if kind is None or kind not in CATEGORIES.values():
        raise ValueError(f"its label {str(label)[:40]!r} is not one of CityPersons")
    visible = value.get("bboxVis")
    box = four_numbers(value.get("bbox"), "bbox")
    return _Person(kind, row, box, None if visible is None else four_numbers(visible, "bboxVis"))


def _add(rows: Rows, unit: Unit, image_id: str, found: Sequence[_Person], people: frozenset[str]) -> None:
    if not found:
        return
    boxes = np.array([each.box for each in found], np.float64)
    seen = np.array([each.visible if each.visible else [np.nan] * 4 for each in found], np.float64)
    area = boxes[:, 2] * boxes[:, 3]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        sound = np.asarray((np.abs(seen) < 1e6).all(1) & (seen[:, 2:] > 0).all(1))
        share = np.where(sound & (area > 0), seen[:, 2] * seen[:, 3] / area, np.nan)
    ignored = [each.kind not in people for each in found]
    rows.boxes(
        [image_id] * len(found),
        xywh_corners(boxes),
        unit.split,
        [each.row for each in found],
        category=["person" if each.kind == DEFAULT else each.kind for each in found],
        ignore=ignored,
        ignore_reason=[each.kind if flag else None for each, flag in zip(found, ignored, strict=True)],
        visibility=[min(1.0, float(value)) if np.isfinite(value) else None for value in share],
        **visible_columns(seen, sound),
    )
