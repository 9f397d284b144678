"""Crops named by identity and camera, as Market-1501 (Zheng et al., ICCV 2015), MARS (ECCV 2016) and
DukeMTMC-reID (ICCV 2017) name them: a crop is an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.errors import CatalogError
from data_catalog.files import folders, image_files, path_fault, walk
from data_catalog.ids import identity
from data_catalog.images import Unreadable, image_size
from data_catalog.rows import Rows
from data_catalog.schema import INVALID

RELEASED = {
    "bounding_box_train": "train",
    "bounding_box_test": "test",
    "bbox_train": "train",
    "bbox_test": "test",
    "query": "query",
}
"""Folders as Market-1501, DukeMTMC-reID and MARS call them, and their splits."""
PLAIN = {"train": "train", "val": "val", "test": "test", "gallery": "test", "query": "query"}
"""Folders of crops in a folder per person, where none of the others is there."""
LAYOUTS = (
    "bounding_box_train, bounding_box_test and query (Market-1501, DukeMTMC-reID)",
    "bbox_train/PERSON and bbox_test/PERSON (MARS)",
    "train, val, test, gallery or query with a folder per person",
)
PATTERN = r"(?P<person>-?\d+)_c(?P<camera>\d+)s(?P<sequence>\d+)_(?P<frame>\d+)_(?P<box>\d+)"
PATTERNS = (
    PATTERN,
    r"(?P<person>00-1|-?\d{4})C(?P<camera>\d+)T(?P<sequence>\d+)F(?P<frame>\d+)",  # MARS
    r"(?P<person>-?\d+)_[cC](?P<camera>\d+)_[fF]?(?P<frame>\d+)",  # DukeMTMC-reID, CUHK03
)
OTHER = ("gt_bbox/*", "gt_query/*", "info/*")
PROTOCOL = "market1501"
_JUNK = frozenset({"-1", "00-1"})
_NUMBER = re.compile(r"-?\d+|00-1", re.ASCII)


class Market1501:
    """Identity -1 (`00-1` in MARS) is junk (an ignore region), 0 a distractor (an unknown person).

    In a folder per person the folder is the identity: `0000` is a distractor, `0` may be a person. Crops in
    `query` are queries too.
    """

    name = "market1501"
    version = 2
    marks = ("bounding_box_train", "bounding_box_test", "query", "bbox_train", "bbox_test")
    needs_images = True  # a box is as large as its crop
    options: Mapping[str, str] = {
        "pattern": "regular expression with a group 'person', and optionally 'camera', 'sequence', 'frame'"
    }

    def discover(self, root: Path, options: Options) -> Layout:
        units = [
            Unit(folder, split, tuple(named), has_file=False)
            for folder, split, images in _crops(root, options)
            if (named := [image for image in images if path_fault(image) is None])
        ]
        if not units:
            raise _refusal(root)
        return Layout(tuple(units), other=OTHER)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        patterns = _patterns(options)
        for number, path in enumerate(unit.images, start=1):
            groups = _groups(patterns, unit, path)
            size = _size(root / path, options)
            if groups is None or size is None:
                why = "its name does not fit the pattern" if groups is None else "no readable image"
                rows.reject(INVALID, "image_unreadable", f"{path}: {why}", number)
            elif _contradicts(unit, groups):
                detail = f"{path}: the name says {groups['person']}, the folder another person"
                rows.reject(INVALID, "identity_conflict", detail, number)
            else:
                _add(rows, unit, path, number, groups, size)
            if rows.is_large():
                yield rows
                rows = Rows(unit.source)
        yield rows


def _crops(root: Path, options: Options) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(folder, split, crops) of each folder of crops: those of a release, else plain ones."""
    present = set(folders(root))
    is_plain = not present & (RELEASED.keys() - {"query"}) and bool(present & (PLAIN.keys() - {"query"}))
    patterns = _patterns(options)
    for top, split in (PLAIN if is_plain else RELEASED).items():
        images = image_files(root, top)
        if images and (not is_plain or _fits(images[0], patterns)):
            yield top, split, images
        for name in folders(root, top):
            images = image_files(root, f"{top}/{name}")
            if images and (not is_plain or _NUMBER.fullmatch(name) or _fits(images[0], patterns)):
                yield f"{top}/{name}", split, images


def _fits(image: str, patterns: tuple[re.Pattern[str], ...]) -> bool:
    """Whether an image is called like a crop: folders of common names may hold anything."""
    return any(pattern.match(PurePosixPath(image).stem) for pattern in patterns)


def _refusal(root: Path) -> CatalogError:
    """Which layouts were looked for, and what is nearest to one."""
    known = {*RELEASED, *PLAIN}
    found = next((path for path in walk(root) if known & set(path.split("/")[:-1])), None)
    parts = found.split("/") if found else []
    above = parts[: next((at for at, part in enumerate(parts) if part in known), 0)]
    if found is None:
        nearest = what_is_there(walk(root))
    elif above:
        nearest = f"{found}; give {'/'.join(above)} as the root"
    else:
        nearest = f"{found}, but no crop lies where one would"
    return refusal(root, "dataset of crops", LAYOUTS, nearest)


def _patterns(options: Options) -> tuple[re.Pattern[str], ...]:
    if "pattern" not in options:
        return tuple(map(re.compile, PATTERNS))
    text = options["pattern"]
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise CatalogError(f"option pattern={text!r}: {error}") from error
    if "person" not in pattern.groupindex:
        raise CatalogError(f"option pattern={text!r}: it needs a group (?P<person>...)")
    return (pattern,)


def _folder_person(unit: Unit) -> str | None:
    """The person whose folder a unit is; None where it holds the crops of all people."""
    return unit.source.partition("/")[2] or None


def _groups(patterns: tuple[re.Pattern[str], ...], unit: Unit, path: str) -> dict[str, str | None] | None:
    """What a crop's name says, and its folder where the name says nothing."""
    stem = PurePosixPath(path).stem
    for pattern in patterns:
        if named := pattern.match(stem):
            return named.groupdict()
    person = _folder_person(unit)
    return None if person is None else {"person": person}


def _contradicts(unit: Unit, groups: Mapping[str, str | None]) -> bool:
    """Whether a crop lies in another person's folder than its name says."""
    folder, name = _folder_person(unit), groups["person"] or ""
    if folder is None or not (_NUMBER.fullmatch(folder) and _NUMBER.fullmatch(name)):
        return False
    return _value(folder) != _value(name)


def _value(person: str) -> int:
    return -1 if person in _JUNK else int(person)


def _size(path: Path, options: Options) -> tuple[int, int] | None:
    try:
        return image_size(path, options.get("exif", "apply"))
    except Unreadable:
        return None


def _add(
    rows: Rows, unit: Unit, path: str, number: int, groups: Mapping[str, str | None], size: tuple[int, int]
) -> None:
    raw = groups["person"] or ""
    is_junk = raw in _JUNK
    is_distractor = bool(re.fullmatch(r"0{4,}" if len(groups) == 1 and _folder_person(unit) else r"0+", raw))
    person = None if is_junk or is_distractor else identity(raw)
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
    if unit.split == "query" and person is not None:
        rows.queries(PROTOCOL, [path], [path], box, [person], [number])


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
