"""PRW, v16.04.20 (Zheng et al., CVPR 2017): one .mat file per frame, identities across six cameras."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import nearest, refusal
from data_catalog.errors import CatalogError
from data_catalog.files import IMAGE_SUFFIXES, is_image, numbered_lines, path_fault, plain_name, walk
from data_catalog.ids import identity, number
from data_catalog.matfile import only_variable
from data_catalog.published import LOESCH_2019, Published
from data_catalog.rows import Rows, xywh_corners
from data_catalog.schema import INVALID

ANNOTATIONS, FRAMES = "annotations", "frames"
OTHER = ("ID_train.mat", "ID_test.mat", "query_box/*")
QUERIES = "query_info.txt"
SPLITS = {"train": "frame_train.mat", "test": "frame_test.mat"}
FRAME_NAME = re.compile(r"c(\d{1,4})s(\d{1,4})_(\d{1,9})$")
PROTOCOL = "prw"

FULL_SIZE = {
    "images": 11_816,
    "boxes": 43_110,
    "boxes_with_id": 34_034,
    "queries": 2_057,
    "train.images": 5_704,
    "train.boxes": 18_048,
    "train.ids": 483,
    "test.images": 6_112,
    "test.boxes": 25_062,
    "test.ids": 544,
}
ICIP_2019 = Published(
    LOESCH_2019,
    {
        "images": 11_816,
        "boxes_with_id": 34_304,
        "ids": 932,
        "train.images": 5_704,
        "train.ids": 483,
        "test.images": 6_112,
        "test.ids": 449,
    },
    {
        "boxes_with_id": "v16.04.20 holds 34,034: 14,907 in train and 19,127 in test",
        "ids": "v16.04.20 holds 483 in train and 450 in test alone",
        "test.ids": "the paper counts identities of test alone; of 544 in test 94 are in train, too",
    },
)


class Prw:
    """Boxes are rows [id, x, y, w, h], 0-based. Negative ids, and those that are not numbers, are people
    without a label.
    """

    name = "prw"
    version = 2
    marks = ("frames", "annotations", "frame_train.mat", "frame_test.mat", "query_info.txt")
    protocol_files: Mapping[str, str] = {PROTOCOL: QUERIES}
    published = (ICIP_2019,)
    options: Mapping[str, str] = {}

    def discover(self, root: Path, options: Options) -> Layout:
        _refuse_other_layouts(root)
        lists = {split: _frame_names(root / file) for split, file in SPLITS.items()}
        _refuse_twice(root, [name for names in lists.values() for name in names])
        annotations = {_frame_of(path): path for path in walk(root, ANNOTATIONS) if path.endswith(".mat")}
        images = {_frame_of(path): path for path in walk(root, FRAMES) if is_image(path)}
        missing = [name for names in lists.values() for name in names if name not in annotations]
        if missing:
            raise CatalogError(
                f"{root}: {len(missing):,} listed frames have no annotation file, such as {missing[0]}: "
                f"add {ANNOTATIONS}/{missing[0]}.jpg.mat, or take it out of {' and '.join(SPLITS.values())}"
            )
        units = [
            Unit(annotations[name], split, images=(images.get(name, f"{FRAMES}/{name}.jpg"),))
            for split, names in lists.items()
            for name in names
        ]
        without = [unit.images[0] for unit in units if _frame_of(unit.images[0]) not in images]
        if (root / QUERIES).exists():
            units.append(Unit(QUERIES, split="test"))
        return Layout(
            units=tuple(units),
            shared=tuple(SPLITS.values()),
            edition="PRW-v16.04.20",
            expected=FULL_SIZE,
            notes=_notes(without, len(units)) if images else (),
            other=OTHER,
        )

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        if unit.source == QUERIES:
            yield _read_queries(root)
        else:
            yield _read_frame(root, unit)


def _refuse_other_layouts(root: Path) -> None:
    needed = (*SPLITS.values(), ANNOTATIONS)
    missing = [name for name in needed if not (root / name).exists()]
    if not missing:
        return
    layout = f"{', '.join(SPLITS.values())} and {ANNOTATIONS}/NAME.jpg.mat, with {FRAMES}/NAME.jpg"
    present = [name for name in needed if name not in missing]
    raise refusal(root, "PRW dataset", (layout,), nearest(root, (SPLITS["train"],), present, missing))


def _refuse_twice(root: Path, names: list[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise CatalogError(f"{root}: {twice} is listed twice in {' and '.join(SPLITS.values())}")


def _notes(without: list[str], frames: int) -> tuple[str, ...]:
    if not without:
        return ()
    return (f"{len(without):,} of {frames:,} listed frames have no image in {FRAMES}, such as {without[0]}",)


def _frame_of(path: str) -> str:
    """A frame's name from that of its image or annotation, with or without folders."""
    name = plain_name(path).rpartition("/")[2].strip().removesuffix(".mat")
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _frame_names(path: Path) -> list[str]:
    _, value = only_variable(path)
    names: list[str] = []
    pending = [value]
    while pending:  # nested cells of names
        entry = pending.pop()
        if isinstance(entry, list):
            pending += reversed(entry)
        elif isinstance(entry, str) and (name := _frame_of(entry)) and path_fault(name) is None:
            names.append(name)
        elif not isinstance(entry, np.ndarray) or entry.size:
            raise CatalogError(f"{path}: entry {len(names) + 1} is not a name of a frame")
    return names


def _read_frame(root: Path, unit: Unit) -> Rows:
    variable, found = only_variable(root / unit.source)
    if not isinstance(found, np.ndarray) or (found.size and found.shape[1:] != (5,)):
        raise CatalogError(
            f"{root / unit.source}: {variable!r} is not a matrix of 5 columns (id, x, y, w, h)"
        )
    values = found.astype(np.float64).reshape(-1, 5)
    rows = Rows(unit.source)
    frame = _frame_of(unit.source)
    image_id = f"{frame}.jpg"
    named = FRAME_NAME.match(frame)
    rows.images(
        [image_id],
        unit.images[0],
        unit.split,
        camera_id=int(named[1]) if named else None,
        sequence_id=f"c{named[1]}s{named[2]}" if named else None,
        frame_index=int(named[3]) if named else None,
    )
    row_numbers = np.arange(1, len(values) + 1)
    ids = values[:, 0]
    valid = np.isnan(ids) | ((ids == np.trunc(ids)) & (np.abs(ids) < 1e9))
    for row in row_numbers[~valid]:
        detail = f"identity {ids[row - 1]:g} is not a whole number"
        rows.reject(INVALID, "identity_unreadable", detail, int(row), image_id)
    values, row_numbers = values[valid], row_numbers[valid]
    people = values[:, 0].tolist()
    rows.boxes(
        [image_id] * len(values),
        xywh_corners(values[:, 1:]),
        unit.split,
        row_numbers,
        person_id=[identity(person) for person in people],
        person_id_raw=["nan" if np.isnan(person) else str(int(person)) for person in people],
    )
    return rows


def _read_queries(root: Path) -> Rows:
    rows = Rows(QUERIES)
    for index, (line_number, line) in enumerate(numbered_lines(root / QUERIES)):
        try:
            person, x, y, w, h, frame = line.split()
            box = [number(value) for value in (x, y, w, h)]
            person_id = identity(number(person))
        except ValueError:
            rows.reject(INVALID, "row_unreadable", f"not 'id x y w h frame': {line[:80]!r}", line_number)
            continue
        if person_id is None:
            detail = f"a query of an unknown person: {line[:80]!r}"
            rows.reject(INVALID, "query_without_identity", detail, line_number)
        else:
            image_id = f"{_frame_of(frame)}.jpg"
            rows.queries(PROTOCOL, [str(index)], [image_id], xywh_corners(box), [person_id], [line_number])
    return rows
