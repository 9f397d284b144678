"""What the releases of MOTChallenge and those who write its format have in common: where sequences lie,
seqinfo.ini, the numbers of frames, and rows of gt.txt.
"""

from __future__ import annotations

import configparser
import glob
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_catalog.adapters.protocol import Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.errors import CatalogError
from data_catalog.files import folders, frame_number, image_files, path_fault, read_text, walk
from data_catalog.ids import whole
from data_catalog.rows import Rows
from data_catalog.schema import INVALID, SCOPE_SEQUENCE
from data_catalog.split_names import DEFAULT, WHOLE_NAMES

GROUND_TRUTH, LABELS, INFO, IMAGES = "gt/gt.txt", "gt/labels.txt", "seqinfo.ini", "img1"
LAYOUTS = (
    "<split>/<sequence>/ with gt/gt.txt, seqinfo.ini or img1 (MOTChallenge, DanceTrack)",
    "dataset/<split>/<sequence>/ (SportsMOT)",
    "<sequence>/ or the root itself with gt/gt.txt (CVAT, datumaro)",
)
OTHER = (
    *(f"*{name}" for name in ("det/det.txt", "gt/gt_*.txt", "seqmap*.txt")),
    *(f"{folder}splits_txt/*" for folder in ("", "*/")),
)
"""Files of the format that nothing is read from: detections, other cuts of the ground truth, lists."""
_ORDER = {"train": 0, "test": 2}
"""Of splits; the others come between, by name."""
KNOWN_COLUMNS = {9: "mot17", 10: "mot15"}
"""Columns of gt.txt, and the adapter that reads them."""
LONGEST_SEQUENCE = 1_000_000
"""Frames; a seqinfo.ini that claims more is damaged."""
_HEAD = 1 << 16
"""Bytes of a gt.txt that are looked at before it is read."""


@dataclass(frozen=True)
class SequencePlace:
    """The folder of a sequence under the root ('' for the root itself), and its split."""

    folder: str
    split: str

    def inside(self, name: str) -> str:
        """The path of a file of the sequence."""
        return f"{self.folder}/{name}" if self.folder else name

    @property
    def name(self) -> str:
        """The folder's own name; '' where it is the root, whose name must not count."""
        return self.folder.rpartition("/")[2]


@dataclass(frozen=True)
class SequenceInfo:
    """What seqinfo.ini says; only its length is always there."""

    length: int = 0
    image_folder: str = IMAGES
    image_suffix: str = ".jpg"
    width: int | None = None
    height: int | None = None
    name: str = ""


@dataclass(frozen=True)
class TruthRow:
    """One line of gt.txt; the box is x1, y1, x2, y2, 0-based."""

    line: int
    frame: int
    track: int
    box: tuple[float, float, float, float]
    tail: tuple[float, ...]


def find_sequences(root: Path) -> list[SequencePlace]:
    """Where the sequences lie. The name of a folder above them is their split.

    Raises:
        CatalogError: when there is no sequence.
    """
    if (root / GROUND_TRUTH).is_file():
        return [SequencePlace("", DEFAULT)]
    found: list[SequencePlace] = []
    for top in folders(root):
        if _is_sequence(root / top):
            found.append(SequencePlace(top, top if top.lower() in WHOLE_NAMES else DEFAULT))
        else:
            found += _inside(root, top, top)
    if not found:
        found = [
            place for split in folders(root, "dataset") for place in _inside(root, f"dataset/{split}", split)
        ]
    if not found:
        raise refusal(root, "MOTChallenge dataset", LAYOUTS, _nearest(root))
    return sorted(found, key=lambda place: _ORDER.get(place.split, 1))


def _inside(root: Path, folder: str, split: str) -> list[SequencePlace]:
    inside = [SequencePlace(f"{folder}/{name}", split) for name in folders(root, folder)]
    return [place for place in inside if _is_sequence(root / place.folder)]


def _is_sequence(folder: Path) -> bool:
    return any((folder / name).exists() for name in (GROUND_TRUTH, INFO, IMAGES))


def _nearest(root: Path) -> str:
    """What is there of the format all the same."""
    files = walk(root)
    truths = [path for path in files if path.endswith((GROUND_TRUTH, INFO))]
    if truths:
        return f"{truths[0]}: give a folder further down as the root"
    gt = [path for path in files if path.endswith("gt.txt")]
    if gt:
        return f"{gt[0]}: a sequence's ground truth is called {GROUND_TRUTH}"
    return what_is_there(files)


def sequence_units(root: Path, places: Sequence[SequencePlace]) -> list[Unit]:
    """The units of sequences; two of one name in different splits carry their split's name before theirs."""
    infos = [_info(root, place) for place in places]
    names = [
        sequence_name(place.name) or info.name or "sequence"
        for place, info in zip(places, infos, strict=True)
    ]
    often = Counter(names)
    return [
        _unit(root, place, info, f"{place.split}/{name}" if often[name] > 1 else name)
        for place, info, name in zip(places, infos, names, strict=True)
    ]


def _unit(root: Path, place: SequencePlace, info: SequenceInfo, name: str) -> Unit:
    """A sequence's gt.txt, or its seqinfo.ini or images where there is no ground truth (test)."""
    files = [file for file in (GROUND_TRUTH, INFO, LABELS) if (root / place.inside(file)).is_file()]
    has_source = bool(files) and files[0] != LABELS
    return Unit(
        source=place.inside(files[0] if has_source else info.image_folder),
        split=place.split,
        images=image_files(root, place.inside(info.image_folder)),
        also=tuple(place.inside(file) for file in (files[1:] if has_source else files)),
        parameters=() if name == sequence_name(place.name) else (name,),
        has_file=has_source,
        annotated=GROUND_TRUTH in files,
    )


def place_of(unit: Unit) -> SequencePlace:
    """The folder of a unit's sequence."""
    for name in (GROUND_TRUTH, INFO):
        if unit.source == name or unit.source.endswith(f"/{name}"):
            return SequencePlace(unit.source.removesuffix(name).rstrip("/"), unit.split)
    return SequencePlace(unit.source.rpartition("/")[0], unit.split)


def has_truth(unit: Unit) -> bool:
    """Whether a unit's sequence has ground truth."""
    return unit.source == place_of(unit).inside(GROUND_TRUTH)


def name_of(unit: Unit) -> str:
    """The name of a unit's sequence, which no other sequence of the dataset has."""
    return unit.parameters[0] if unit.parameters else sequence_name(place_of(unit).name)


def _info(root: Path, place: SequencePlace) -> SequenceInfo:
    path = root / place.inside(INFO)
    return read_info(path) if path.is_file() else SequenceInfo()


def read_info(path: Path) -> SequenceInfo:
    """Read a seqinfo.ini; MOT15's may hold only name and seqLength.

    Raises:
        CatalogError: when it is damaged.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read_text(path))
        section = parser["Sequence"]
        length = whole(section.get("seqLength", "0"))
        width, height = (whole(section[key]) if section.get(key) else None for key in ("imWidth", "imHeight"))
    except (configparser.Error, KeyError, ValueError) as error:
        raise CatalogError(f"{path}: not a seqinfo.ini: {str(error).splitlines()[0]}") from error
    folder, suffix = section.get("imDir", IMAGES).strip("/") or IMAGES, section.get("imExt", ".jpg")
    for name in (folder, f"1{suffix}"):
        if fault := path_fault(name):
            raise CatalogError(f"{path}: imDir or imExt: {fault}: {name!r}")
    if not 0 <= length <= LONGEST_SEQUENCE:
        raise CatalogError(f"{path}: seqLength {length} is not between 0 and {LONGEST_SEQUENCE}")
    name = section.get("name", "").strip()
    return SequenceInfo(length, folder, suffix, width, height, "" if path_fault(name) else name)


def sequence_name(folder: str) -> str:
    """`MOT17-02` of `MOT17-02-FRCNN`: the public detector is not part of the scene."""
    stem, _, last = folder.rpartition("-")
    return stem if last in ("DPM", "FRCNN", "SDP") and stem else folder


def read_rows(
    path: Path, rows: Rows, *, columns: tuple[int, ...], first_pixel: int = 1
) -> Iterator[TruthRow]:
    """The lines of a gt.txt, coordinates made 0-based; unreadable ones become rejects of `rows`.

    Columns are separated by commas, or by blanks or semicolons; commas at the end mean nothing.
    """
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        parts = _columns(line)
        try:
            if len(parts) not in columns:
                raise ValueError(f"{len(parts)} columns")
            frame, track = whole(parts[0].strip()), whole(parts[1].strip())
            x, y, w, h, *tail = (float(part) for part in parts[2:])
            if not 0 <= frame <= LONGEST_SEQUENCE or not all(map(math.isfinite, tail)):
                raise ValueError("a value out of range")
        except (ValueError, OverflowError) as error:
            rows.reject(INVALID, "row_unreadable", f"{str(error)[:80]}: {line[:80]!r}", line_number)
            continue
        left, top = x - first_pixel, y - first_pixel
        yield TruthRow(line_number, frame, track, (left, top, left + w, top + h), tuple(tail))


def _columns(line: str) -> list[str]:
    parts = line.split(",") if "," in line else line.replace(";", " ").split()
    while parts and not parts[-1].strip():
        parts.pop()
    return parts


def add_images(
    rows: Rows, root: Path, unit: Unit, found: Sequence[TruthRow]
) -> tuple[list[TruthRow], dict[int, str]]:
    """Add a sequence's images; return the rows that have one, and the image of each frame number.

    Images are the files there are, and the frames that the ground truth names; where no file is there, as
    many as seqinfo.ini says. Rows of a frame 0 that is not there are rejects.
    """
    place, info, sequence = place_of(unit), _info(root, place_of(unit)), name_of(unit)
    files = frame_files(unit.images)
    frames = {row.frame for row in found}
    shift = _shift(frames, files)
    lost = {0} if files and shift not in files else set()
    for row in found:
        if row.frame in lost:
            detail = f"{sequence}: frames are numbered from 1, and there is no image of frame 0"
            rows.reject(INVALID, "image_unknown", detail, row.line)
    first = 0 if 0 in frames else 1
    stated = set(range(first, first + info.length))
    numbers = sorted({frame + shift for frame in frames - lost} | (set(files) if files else stated))
    ids = {number: f"{sequence}/{number:06d}" for number in numbers}
    rows.images(
        list(ids.values()),
        [
            files.get(number, place.inside(f"{info.image_folder}/{number:06d}{info.image_suffix}"))
            for number in numbers
        ],
        unit.split,
        width=info.width,
        height=info.height,
        sequence_id=sequence,
        frame_index=numbers,
    )
    placed = [row for row in found if row.frame not in lost]
    return placed, {frame: ids[frame + shift] for frame in frames - lost}


def add_boxes(
    rows: Rows,
    unit: Unit,
    found: Sequence[TruthRow],
    ids: Mapping[int, str],
    reasons: Sequence[str | None],
    **columns: Any,
) -> None:
    """Add the boxes of rows whose frames' images are `ids`; those with a reason are ignore regions.

    A person is unknown in ignore regions and where the track is negative.
    """
    sequence = name_of(unit)
    rows.boxes(
        [ids[row.frame] for row in found],
        np.array([row.box for row in found]).reshape(-1, 4),
        unit.split,
        [row.line for row in found],
        ignore=[reason is not None for reason in reasons],
        ignore_reason=reasons,
        person_id=[
            None if reason or row.track < 0 else f"{sequence}/{row.track}"
            for reason, row in zip(reasons, found, strict=True)
        ],
        person_id_raw=[str(row.track) for row in found],
        person_scope=SCOPE_SEQUENCE,
        **columns,
    )


def frame_files(images: Iterable[str]) -> dict[int, str]:
    """Image files by their frame numbers, the last digits of their names.

    Raises:
        CatalogError: for a name without digits at its end.
    """
    found: dict[int, str] = {}
    for path in images:
        number = frame_number(path)
        if number is None:
            raise CatalogError(f"{path}: an image of a sequence must be named by its frame number")
        found.setdefault(number, path)
    return found


def _shift(frames: set[int], files: dict[int, str]) -> int:
    """What is added to a frame's number to get its image's, where one of them counts from 0.

    datumaro counts frames from 1 unless the image's name is nothing but a number.
    """
    start = min(files, default=1)
    named = bool(files) and not PurePosixPath(files[start]).stem.isdigit()
    if named and start == 0 and 0 not in frames:
        return -1
    if not files or frames <= files.keys():
        return 0
    return next((by for by in (-1, 1) if all(frame + by in files for frame in frames)), 0)


def notes_on(root: Path, units: Sequence[Unit]) -> tuple[str, ...]:
    """Sentences where sequences count their frames from 0, and where nothing annotates them."""
    return (*_numbering_notes(root, units), *_truth_notes(root, units))


def _truth_notes(root: Path, units: Sequence[Unit]) -> tuple[str, ...]:
    """A sentence on sequences whose ground truth is empty; the ingest tells where it is missing."""
    bare = [unit for unit in units if unit.annotated and unit.images and not _has_rows(root, unit)]
    if not bare:
        return ()
    images, first = sum(len(unit.images) for unit in bare), bare[0]
    which = f"such as {name_of(first)} of split {first.split!r}"
    note = f"sequences without a row in {GROUND_TRUTH}: {len(bare):,}, {which}"
    return (f"{note}; their {images:,} images count as images without people",)


def _has_rows(root: Path, unit: Unit) -> bool:
    return has_truth(unit) and bool(_head(root / unit.source))


def _numbering_notes(root: Path, units: Iterable[Unit]) -> tuple[str, ...]:
    """A sentence where sequences count their frames from 0."""
    from_zero = [unit for unit in units if 0 in frame_files(unit.images) or _has_frame_zero(root, unit)]
    if not from_zero:
        return ()
    count = f"{len(from_zero):,} sequence" + ("s" if len(from_zero) != 1 else "")
    return (f"frames are numbered from 0 in {count}, such as {name_of(from_zero[0])}",)


def _has_frame_zero(root: Path, unit: Unit) -> bool:
    if not has_truth(unit):
        return False
    for line in _head(root / unit.source):
        try:
            if whole(_columns(line)[0].strip()) == 0:
                return True
        except (ValueError, IndexError):
            continue  # its reading will tell
    return False


def _head(path: Path) -> list[str]:
    """The first lines that are not blank."""
    try:
        with path.open("rb") as file:
            text = file.read(_HEAD).decode("utf-8-sig", "replace")
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error
    lines = text.splitlines()
    return [line for line in (lines[:-1] if len(text) >= _HEAD else lines) if line.strip()]


def check_columns(root: Path, units: Iterable[Unit], columns: tuple[int, ...], release: str) -> None:
    """Raise CatalogError when the first ground truth has another release's number of columns."""
    for unit in units:
        lines = _head(root / unit.source) if has_truth(unit) else []
        if lines:
            found = len(_columns(lines[0]))
            if found not in columns and found in KNOWN_COLUMNS:
                raise CatalogError(
                    f"{root / unit.source}: {found} columns, {release} has {columns[0]}: "
                    f"use the adapter {KNOWN_COLUMNS[found]}"
                )
            return


def other_files(left_out: Iterable[SequencePlace] = ()) -> tuple[str, ...]:
    """Patterns of what belongs to the format and is not read, with all files of sequences left out."""
    return (*OTHER, *(f"{glob.escape(place.folder)}/*" for place in left_out))
