"""Crops named by identity and camera, as Market-1501 (Zheng et al., ICCV 2015): a crop is an image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import image_files
from data_catalog.images import Unreadable, image_size
from data_catalog.rows import Rows
from data_catalog.schema import INVALID

FOLDERS = {"bounding_box_train": "train", "bounding_box_test": "test", "query": "query"}
PATTERN = r"(?P<person>-?\d+)_c(?P<camera>\d+)s(?P<sequence>\d+)_(?P<frame>\d+)_(?P<box>\d+)"
JUNK, DISTRACTOR = -1, 0
PROTOCOL = "market1501"


class Market1501:
    """Identity -1 is junk (an ignore region), 0 a distractor (somebody unknown).

    Crops in `query` are queries too.
    """

    name = "market1501"
    version = 1
    needs_images = True  # a box is as large as its crop
    options: Mapping[str, str] = {
        "pattern": "regular expression with a group 'person', and perhaps 'camera', 'sequence' and 'frame'"
    }

    def discover(self, root: Path, options: Options) -> Layout:
        _pattern(options)
        found = {folder: image_files(root, folder) for folder in FOLDERS}
        units = [
            Unit(folder, FOLDERS[folder], images, has_file=False)
            for folder, images in found.items()
            if images
        ]
        if not units:
            raise CatalogError(f"{root} is no dataset of crops: no images in {', '.join(FOLDERS)}")
        return Layout(tuple(units))

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        pattern = _pattern(options)
        for number, path in enumerate(unit.images, start=1):
            named = pattern.match(Path(path).stem)
            size = _size(root / path)
            if named is None or size is None:
                why = "its name does not fit the pattern" if named is None else "no readable image"
                rows.reject(INVALID, "image_unreadable", f"{path}: {why}", number)
            else:
                _add(rows, unit, path, number, named, size)
        yield rows


def _pattern(options: Options) -> re.Pattern[str]:
    text = options.get("pattern", PATTERN)
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise CatalogError(f"option pattern={text!r}: {error}") from error
    if "person" not in pattern.groupindex:
        raise CatalogError(f"option pattern={text!r}: it needs a group (?P<person>...)")
    return pattern


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except Unreadable:
        return None


def _add(rows: Rows, unit: Unit, path: str, number: int, named: re.Match[str], size: tuple[int, int]) -> None:
    groups = named.groupdict()
    raw = groups["person"]
    value = int(raw) if re.fullmatch(r"-?\d{1,9}", raw) else None
    is_junk = value == JUNK
    person = None if value in (JUNK, DISTRACTOR) else raw
    camera, frame = (_number(groups.get(name)) for name in ("camera", "frame"))
    sequence = groups.get("sequence")
    rows.images([path], path, unit.split, camera_id=camera, sequence_id=sequence, frame_index=frame)
    box = np.array([[0, 0, *size]])
    rows.boxes(
        [path],
        box,
        unit.split,
        [number],
        ignore=is_junk,
        ignore_reason="junk" if is_junk else None,
        person_id=person,
        person_id_raw=raw,
    )
    if unit.source == "query" and person is not None:
        rows.queries(PROTOCOL, [path], [path], box, [person], [number])


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
