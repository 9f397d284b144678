"""PRW, v16.04.20 (Zheng et al., CVPR 2017): one .mat file a frame, identities across six cameras."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import need_files, path_fault, read_text
from data_catalog.matfile import only_variable
from data_catalog.published import LOESCH_2019, Published
from data_catalog.rows import Rows, xywh_corners
from data_catalog.schema import INVALID

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
    """Boxes are rows [id, x, y, w, h], 0-based. Negative ids are people without a label."""

    name = "prw"
    version = 1
    protocol_files: Mapping[str, str] = {PROTOCOL: QUERIES}
    published = (ICIP_2019,)
    options: Mapping[str, str] = {}

    def discover(self, root: Path, options: Options) -> Layout:
        need_files(root, (*SPLITS.values(), "annotations"), "PRW dataset")
        units: list[Unit] = []
        for split, list_file in SPLITS.items():
            units += [_frame(name, split) for name in _frame_names(root / list_file)]
        _check_frames(root, units)
        if (root / QUERIES).exists():
            units.append(Unit(QUERIES, split="test"))
        return Layout(
            units=tuple(units),
            shared=tuple(SPLITS.values()),
            edition="PRW-v16.04.20",
            expected=FULL_SIZE,
            other=("ID_train.mat", "ID_test.mat", "query_box/*"),
        )

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        if unit.source == QUERIES:
            yield _read_queries(root)
        else:
            yield _read_frame(root, unit)


def _frame(name: str, split: str) -> Unit:
    return Unit(f"annotations/{name}.jpg.mat", split, images=(f"frames/{name}.jpg",))


def _frame_names(path: Path) -> list[str]:
    _, value = only_variable(path)
    names: list[str] = []
    pending = [value]
    while pending:  # nested cells of names
        entry = pending.pop()
        if isinstance(entry, list):
            pending += reversed(entry)
        elif isinstance(entry, str) and path_fault(entry) is None and "/" not in entry:
            names.append(entry.removesuffix(".jpg"))
        else:
            raise CatalogError(f"{path}: entry {len(names) + 1} is no name of a frame")
    return names


def _check_frames(root: Path, units: list[Unit]) -> None:
    listed = [unit.source for unit in units]
    if len(set(listed)) != len(listed):
        twice = next(source for source in listed if listed.count(source) > 1)
        raise CatalogError(f"{root}: {twice} is listed twice in {' and '.join(SPLITS.values())}")
    present = {
        f"annotations/{path.name}" for path in (root / "annotations").iterdir() if path.suffix == ".mat"
    }
    missing = [source for source in listed if source not in present]
    if missing:
        raise CatalogError(
            f"{root}: {len(missing)} frames are listed without an annotation file, such as {missing[0]}"
        )
    unlisted = sorted(present - set(listed))
    if unlisted:
        raise CatalogError(
            f"{root}: {len(unlisted)} annotation files are in neither {' nor '.join(SPLITS.values())}, "
            f"such as {unlisted[0]}"
        )


def _read_frame(root: Path, unit: Unit) -> Rows:
    variable, found = only_variable(root / unit.source)
    if not isinstance(found, np.ndarray) or (found.size and found.shape[1:] != (5,)):
        raise CatalogError(
            f"{root / unit.source}: {variable!r} is not a matrix of 5 columns (id, x, y, w, h)"
        )
    values = found.astype(np.float64).reshape(-1, 5)
    rows = Rows(unit.source)
    image_id = unit.images[0].rpartition("/")[2]
    named = FRAME_NAME.match(Path(image_id).stem)
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
    valid = np.isfinite(ids) & (ids == np.trunc(ids)) & (np.abs(ids) < 1e9)
    for row in row_numbers[~valid]:
        detail = f"identity {ids[row - 1]:g} is no whole number"
        rows.reject(INVALID, "identity_unreadable", detail, int(row), image_id)
    values, row_numbers = values[valid], row_numbers[valid]
    raw = [str(int(value)) for value in values[:, 0]]
    rows.boxes(
        [image_id] * len(values),
        xywh_corners(values[:, 1:]),
        unit.split,
        row_numbers,
        person_id=[None if value.startswith("-") else value for value in raw],
        person_id_raw=raw,
    )
    return rows


def _read_queries(root: Path) -> Rows:
    rows = Rows(QUERIES)
    ids: list[str] = []
    images: list[str] = []
    xywh: list[list[float]] = []
    numbers: list[str] = []
    lines: list[int] = []
    index = -1
    for line_number, line in enumerate(read_text(root / QUERIES).splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        index += 1
        try:
            person, x, y, w, h, frame = parts
            box = [float(x), float(y), float(w), float(h)]
            person_id = str(int(person))
        except ValueError:
            rows.reject(INVALID, "row_unreadable", f"not 'id x y w h frame': {line[:80]!r}", line_number)
            continue
        numbers.append(str(index))
        lines.append(line_number)
        ids.append(person_id)
        images.append(f"{frame.removesuffix('.jpg')}.jpg")
        xywh.append(box)
    rows.queries(PROTOCOL, numbers, images, xywh_corners(np.array(xywh).reshape(-1, 4)), ids, lines)
    return rows
