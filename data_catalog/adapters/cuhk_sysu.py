"""CUHK-SYSU (Xiao et al., CVPR 2017): street snaps and film frames, with galleries of 50 to 4,000 images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import nearest, refusal
from data_catalog.errors import CatalogError
from data_catalog.files import NameLookup, files_with_suffix, image_files, path_fault, plain_name
from data_catalog.matfile import DamagedMat, only_variable, read_matrix
from data_catalog.matstream import NamedBoxes, StructStream, box_of, named_boxes
from data_catalog.published import LOESCH_2019, Published
from data_catalog.rows import LARGE, Rows, xywh_corners
from data_catalog.schema import INVALID

IMAGES, PEOPLE, POOL = "annotation/Images.mat", "annotation/Person.mat", "annotation/pool.mat"
PROTOCOLS = "annotation/test/train_test"
TRAIN = f"{PROTOCOLS}/Train.mat"
IMAGE_FOLDER = "Image/SSM"

OTHER = ("annotation/test/subset/*",)
LAYOUTS = (
    f"{IMAGES} with {POOL} and images in {IMAGE_FOLDER}",
    f"{PROTOCOLS}/TestG*.mat alone, with images in {IMAGE_FOLDER}",
)

FULL_SIZE = {
    "images": 18_184,
    "boxes": 96_143,
    "train.images": 11_206,
    "train.boxes": 55_272,
    "train.ids": 5_532,
    "test.images": 6_978,
    "test.boxes": 40_871,
}

ICIP_2019 = Published(
    LOESCH_2019,
    {
        "images": 18_184,
        "boxes": 99_809,
        "ids": 8_432,
        "train.images": 11_206,
        "train.ids": 5_532,
        "test.images": 6_978,
    },
    {"boxes": "the public Images.mat holds 96,143, 55,272 in train and 40,871 in test: another edition"},
)

BoxKey = tuple[str, float, float, float, float]


class CuhkSysu:
    """Boxes are x, y, w, h, taken as they are: the smallest coordinate is 1, and nothing is subtracted.

    Test is what pool.mat lists, train the rest. Identities are joined to boxes by equality of image and box.
    A root that holds only protocol files is read, too: its images and boxes are those that they name.
    """

    name = "cuhk-sysu"
    version = 3
    marks = ("SSM", "annotation", "Images.mat", "Person.mat", "pool.mat", "train_test")
    published = (ICIP_2019,)
    options: Mapping[str, str] = {}

    def discover(self, root: Path, options: Options) -> Layout:
        protocols = sorted(
            (path for path in files_with_suffix(root, PROTOCOLS, ".mat") if "/TestG" in path),
            key=_gallery_size,
        )
        present = [name for name in (IMAGES, PEOPLE, POOL, TRAIN) if (root / name).exists()]
        images = image_files(root, IMAGE_FOLDER)
        if not present and protocols:
            also = tuple(protocols[1:])
            unit = Unit(protocols[0], "test", images, also, parameters=("protocols alone",))
            edition = "protocol files alone: images and boxes that they name"
            return Layout((unit,), edition=edition, other=OTHER)
        missing = [name for name in (IMAGES, POOL) if name not in present]
        if missing:
            found = nearest(root, (IMAGES, POOL), present[:1], missing)
            raise refusal(root, "CUHK-SYSU dataset", LAYOUTS, found)
        also = tuple(name for name in present if name != IMAGES)
        units = (Unit(IMAGES, "train", images, also), *(Unit(name, "test") for name in protocols))
        has_people = PEOPLE in present or TRAIN in present
        edition = "with identities" if has_people else "without identities: neither Person.mat nor Train.mat"
        return Layout(units, edition=edition, expected=FULL_SIZE, other=OTHER)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        if unit.source == IMAGES:
            yield from _read_images(root, unit)
        elif unit.also or not (root / IMAGES).exists():
            yield from _read_protocols_alone(root, unit)
        else:
            yield from _read_protocol(root, unit.source, None)


def _gallery_size(path: str) -> tuple[int, str]:
    stem = path.rpartition("/")[2].rpartition(".")[0]
    digits = stem.removeprefix("TestG")
    return (int(digits) if digits.isascii() and digits.isdigit() else 0, stem)


def _read_images(root: Path, unit: Unit) -> Iterator[Rows]:
    pool = dict.fromkeys(_names(root, POOL))
    test = set(pool)
    files = NameLookup(unit.images)
    people = _people(root, unit.also)
    rows = Rows(IMAGES)
    number = 0
    for image in _structs(root, IMAGES):
        name = _name(root / IMAGES, image.get("imname"))
        split = "test" if name in test else "train"
        pool.pop(name, None)
        path = f"{IMAGE_FOLDER}/{name}"
        rows.images([name], files.find(path) or path, split)
        good = []
        for found in image.get("box", []):
            number += 1
            box = _xywh(root / IMAGES, _first_field(found))
            if box is None:
                rows.reject(INVALID, "box_empty", "idlocate is empty", number, name)
            else:
                good.append((number, box, _is_hard(found)))
        ids = [people.pop((name, box[0], box[1], box[2], box[3])) for _, box, _ in good]
        rows.boxes(
            [name] * len(good),
            xywh_corners(np.array([box for _, box, _ in good])),
            split,
            [row for row, _, _ in good],
            person_id=ids,
            person_id_raw=ids,
            hard=[hard for _, _, hard in good],
        )
        if rows.is_large():
            yield rows
            rows = Rows(IMAGES)
    if pool:
        raise CatalogError(
            f"{root / POOL}: of {len(test):,} images that it lists for test {len(pool):,} are not in "
            f"{IMAGES}, such as {next(iter(pool))!r}; take both files from the same release"
        )
    yield rows
    yield from people.lost()


@dataclass(frozen=True)
class _Person:
    """An entry of Person.mat or Train.mat; `row` counts their scenes from 1."""

    name: str
    source: str
    row: int


@dataclass
class _People:
    """Who is in which box, and the rejects of each file for the entries that say nothing of use."""

    at: dict[BoxKey, _Person] = field(default_factory=dict)
    rejects: dict[str, Rows] = field(default_factory=dict)

    def pop(self, key: BoxKey) -> str | None:
        """The identity in a box of Images.mat."""
        person = self.at.pop(key, None)
        return None if person is None else person.name

    def add(self, key: BoxKey | None, image: str, person: _Person) -> None:
        if key is None:
            self.reject(person, "identity_without_box", f"{person.name}: idlocate is empty", image)
            return
        other = self.at.setdefault(key, person)
        if other.name != person.name:
            detail = f"{person.name}: its box is {other.name}'s, by {other.source}, row {other.row}"
            self.reject(person, "identity_conflict", detail, image)

    def reject(self, person: _Person, code: str, detail: str, image: str) -> None:
        rows = self.rejects.setdefault(person.source, Rows(person.source))
        rows.reject(INVALID, code, detail, person.row, image)

    def lost(self) -> Iterator[Rows]:
        """All rejects, with those of the identities for which Images.mat holds no equal box."""
        for (image, x, y, w, h), person in self.at.items():
            detail = f"{person.name} at {x:g} {y:g} {w:g} {h:g}: Images.mat has no box like that"
            self.reject(person, "identity_without_box", detail, image)
        yield from self.rejects.values()


def _people(root: Path, files: tuple[str, ...]) -> _People:
    found = _People()
    for source in (PEOPLE, TRAIN):
        row = 0
        for person in _structs(root, source) if source in files else ():
            name = _text(root / source, person.get("idname"))
            for scene in person.get("scene", []):
                row += 1
                image = _name(root / source, scene.get("imname"))
                box = _xywh(root / source, scene.get("idlocate"))
                key = None if box is None else (image, box[0], box[1], box[2], box[3])
                found.add(key, image, _Person(name, source, row))
    return found


class _Named:
    """Images and labelled boxes that protocols name, gathered while they are read."""

    def __init__(self) -> None:
        self.images: dict[str, None] = {}
        self.boxes: dict[BoxKey, str] = {}

    def add(
        self, rows: Rows, row: int, query: str, box: list[float], entries: NamedBoxes, person: str
    ) -> None:
        """What a query names; a box that an earlier one gave to another person is a reject of `rows`."""
        names = entries.names
        self.images.update(dict.fromkeys([query, *names.to_pylist()]))
        labelled = entries.names.take(pa.array(entries.labelled)).to_pylist()
        for image, (x, y, w, h) in [(query, box), *zip(labelled, entries.xywh.tolist(), strict=True)]:
            other = self.boxes.setdefault((image, x, y, w, h), person)
            if other != person:
                detail = f"{person}: its box is {other}'s, by an earlier query"
                rows.reject(INVALID, "identity_conflict", detail, row, image)


def _read_protocols_alone(root: Path, unit: Unit) -> Iterator[Rows]:
    named = _Named()
    for source in (unit.source, *unit.also):
        yield from _read_protocol(root, source, named)
    rows = Rows(unit.source)
    names = sorted(named.images)
    rows.images(names, [f"{IMAGE_FOLDER}/{name}" for name in names], "test")
    keys = list(named.boxes)
    ids = list(named.boxes.values())
    rows.boxes(
        [key[0] for key in keys],
        xywh_corners(np.array([key[1:] for key in keys])),
        "test",
        list(range(1, len(keys) + 1)),
        person_id=ids,
        person_id_raw=ids,
    )
    yield rows


def _read_protocol(root: Path, source: str, named: _Named | None) -> Iterator[Rows]:
    path = root / source
    protocol = path.stem
    rows = Rows(source)
    with StructStream(path) as stream:
        if not {"Query", "Gallery"} <= set(stream.fields):
            raise CatalogError(f"{path}: not a protocol file: its fields are {', '.join(stream.fields)}")
        for index, value in enumerate(stream):
            try:
                image, box, person = _query(path, value["Query"], stream.order)
                entries = named_boxes(value["Gallery"], stream.order)
            except DamagedMat as error:
                raise CatalogError(f"{path}: query {index}: {error}") from error
            rows.queries(protocol, [str(index)], [image], xywh_corners(np.array(box)), [person], [index + 1])
            _add_gallery(rows, protocol, str(index), entries)
            if named is not None:
                named.add(rows, index + 1, image, box, entries, person)
            if rows.gallery_count() >= LARGE:
                yield rows
                rows = Rows(source)
    yield rows


def _query(path: Path, value: bytes, order: str) -> tuple[str, list[float], str]:
    _, found = read_matrix(value, 0, len(value), order)
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        raise DamagedMat("Query is not a struct")
    box = box_of(found[0].get("idlocate"))
    if box is None:
        raise DamagedMat("Query has no box")
    return _name(path, found[0].get("imname")), box, _text(path, found[0].get("idname"))


def _add_gallery(rows: Rows, protocol: str, query: str, entries: NamedBoxes) -> None:
    count = len(entries.names)
    positive = np.zeros(count, bool)
    positive[entries.labelled] = True
    corners = np.zeros((count, 4), np.float32)
    corners[entries.labelled] = xywh_corners(entries.xywh)
    columns = {
        name: pa.array(corners[:, i], mask=~positive) for i, name in enumerate(("x1", "y1", "x2", "y2"))
    }
    rows.gallery(protocol, query, entries.names, pa.array(positive), **columns)


def _names(root: Path, source: str) -> list[str]:
    _, value = only_variable(root / source)
    if not isinstance(value, list):
        raise CatalogError(f"{root / source}: not a cell array of names")
    return [_name(root / source, entry[0] if isinstance(entry, list) and entry else entry) for entry in value]


def _structs(root: Path, source: str) -> Iterator[dict[str, Any]]:
    """The structs of a struct array, or of cells of 1x1 struct arrays."""
    _, value = only_variable(root / source)
    for entry in value if isinstance(value, list) else [value]:
        inner = entry[0] if isinstance(entry, list) and len(entry) == 1 else entry
        if not isinstance(inner, dict):
            raise CatalogError(f"{root / source}: not an array of structs")
        nested = inner.get("scene", inner.get("box", []))
        is_table = isinstance(nested, list) and all(isinstance(item, dict) for item in nested)
        if not is_table and not (isinstance(nested, np.ndarray) and nested.size == 0):
            raise CatalogError(f"{root / source}: 'scene' or 'box' is not a struct array")
        yield inner if is_table else {**inner, "scene": [], "box": []}


def _first_field(box: Mapping[str, Any]) -> object:
    return box["idlocate"] if "idlocate" in box else next(iter(box.values()), None)


def _is_hard(box: Mapping[str, Any]) -> bool | None:
    value = box.get("ishard")
    return bool(value.ravel()[0]) if isinstance(value, np.ndarray) and value.size else None


def _xywh(path: Path, value: object) -> list[float] | None:
    try:
        return box_of(value)
    except DamagedMat as error:
        raise CatalogError(f"{path}: {error}") from error


def _text(path: Path, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise CatalogError(f"{path}: an identity has no name (idname)")
    return value


def _name(path: Path, value: object) -> str:
    """An image's name; it may stand with the images' folder before it, and blanks around it."""
    name = plain_name(value.strip()).removeprefix(f"{IMAGE_FOLDER}/") if isinstance(value, str) else ""
    if not name or "/" in name or (fault := path_fault(name)):
        reason = fault if name and "/" not in name else "it is not a file name"
        raise CatalogError(f"{path}: imname {str(value)[:80]!r}: {reason}")
    return name
