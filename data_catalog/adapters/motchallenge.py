"""What the releases of MOTChallenge have in common: sequences, seqinfo.ini, and rows of comma-separated
numbers.
"""

from __future__ import annotations

import configparser
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_catalog.adapters.protocol import Unit
from data_catalog.errors import CatalogError
from data_catalog.files import image_files, path_fault, read_text
from data_catalog.rows import Rows
from data_catalog.schema import INVALID

SPLITS = ("train", "test")
GROUND_TRUTH = "gt/gt.txt"
KNOWN_COLUMNS = {9: "mot17", 10: "mot15"}
"""Columns of gt.txt, and the adapter that reads such."""
LONGEST_SEQUENCE = 1_000_000
"""Frames; a seqinfo.ini that claims more is damaged."""


@dataclass(frozen=True)
class SequenceInfo:
    """What seqinfo.ini says; only its length is always there."""

    length: int
    image_folder: str
    image_suffix: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class Row:
    """One line of gt.txt; the box is x1, y1, x2, y2, 0-based."""

    line: int
    frame: int
    track: int
    box: tuple[float, float, float, float]
    tail: tuple[float, ...]


def sequence_folders(root: Path) -> dict[str, list[str]]:
    """Names of the folders of each split that hold a sequence.

    Raises:
        CatalogError: when the root has no split with a sequence.
    """
    if not root.is_dir():
        raise CatalogError(f"{root}: no such folder")
    found = {
        split: sorted(path.parent.name for path in (root / split).glob("*/seqinfo.ini")) for split in SPLITS
    }
    if not any(found.values()):
        raise CatalogError(
            f"{root} is no MOTChallenge dataset: no {{train,test}}/<sequence>/seqinfo.ini found"
        )
    return found


def sequence_unit(root: Path, split: str, folder: str) -> Unit:
    """The unit of a sequence: its gt.txt, or its seqinfo.ini where there is no ground truth (test)."""
    base = f"{split}/{folder}"
    info = read_info(root / base / "seqinfo.ini")
    has_truth = (root / base / GROUND_TRUTH).exists()
    return Unit(
        source=f"{base}/{GROUND_TRUTH}" if has_truth else f"{base}/seqinfo.ini",
        split=split,
        images=image_files(root, f"{base}/{info.image_folder}"),
        also=(f"{base}/seqinfo.ini",) if has_truth else (),
        annotated=has_truth,
    )


def read_info(path: Path) -> SequenceInfo:
    """Read a seqinfo.ini; MOT15's may hold only name and seqLength.

    Raises:
        CatalogError: when it is damaged.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read_text(path))
        section = parser["Sequence"]
        length = section.getint("seqLength", fallback=0)
        width = section.getint("imWidth", fallback=None)
        height = section.getint("imHeight", fallback=None)
    except (configparser.Error, KeyError, ValueError) as error:
        raise CatalogError(f"{path}: not a seqinfo.ini: {str(error).splitlines()[0]}") from error
    folder, suffix = section.get("imDir", "img1"), section.get("imExt", ".jpg")
    for name in (folder, f"1{suffix}"):
        if fault := path_fault(name):
            raise CatalogError(f"{path}: imDir or imExt: {fault}: {name!r}")
    if not 0 <= length <= LONGEST_SEQUENCE:
        raise CatalogError(f"{path}: seqLength {length} is not between 0 and {LONGEST_SEQUENCE}")
    return SequenceInfo(length, folder, suffix, width, height)


def sequence_name(folder: str) -> str:
    """`MOT17-02` of `MOT17-02-FRCNN`: the public detector is not part of the scene."""
    stem, _, last = folder.rpartition("-")
    return stem if last in ("DPM", "FRCNN", "SDP") and stem else folder


def read_rows(path: Path, rows: Rows, *, columns: tuple[int, ...]) -> Iterator[Row]:
    """The lines of a gt.txt, coordinates made 0-based; unreadable ones become rejects of `rows`."""
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split(",")
        try:
            if len(parts) not in columns:
                raise ValueError(f"{len(parts)} columns")
            frame, track = int(parts[0]), _whole(parts[1])
            x, y, w, h, *tail = (float(part) for part in parts[2:])
            if not 1 <= frame <= LONGEST_SEQUENCE or not all(map(math.isfinite, tail)):
                raise ValueError("a value out of range")
        except (ValueError, OverflowError) as error:
            rows.reject(INVALID, "row_unreadable", f"{str(error)[:80]}: {line[:80]!r}", line_number)
            continue
        yield Row(line_number, frame, track, (x - 1, y - 1, x - 1 + w, y - 1 + h), tuple(tail))


def _whole(text: str) -> int:
    """A track's number, which some releases write as `1.0`."""
    value = float(text)
    if not value.is_integer():
        raise ValueError("the track is no whole number")
    return int(value)


def add_images(rows: Rows, root: Path, unit: Unit, frames: set[int]) -> dict[int, str]:
    """Add a sequence's images and return the image of each frame number.

    They are the files there are, and the frames that the ground truth names; where no file is there, as many
    as seqinfo.ini says.
    """
    base = "/".join(unit.source.split("/")[:2])
    info = read_info(root / base / "seqinfo.ini")
    paths = {_frame_of(path): path for path in unit.images}
    wanted = frames | (set(paths) if paths else set(range(1, info.length + 1)))
    sequence = sequence_name(base.rpartition("/")[2])
    numbers = sorted(wanted)
    ids = {number: f"{sequence}/{number:06d}" for number in numbers}
    rows.images(
        [ids[number] for number in numbers],
        [
            paths.get(number, f"{base}/{info.image_folder}/{number:06d}{info.image_suffix}")
            for number in numbers
        ],
        unit.split,
        width=info.width,
        height=info.height,
        sequence_id=sequence,
        frame_index=numbers,
    )
    return ids


def _frame_of(path: str) -> int:
    stem = Path(path).stem
    if not (stem.isascii() and stem.isdigit()) or len(stem) > 9:
        raise CatalogError(f"{path}: an image of a sequence must be named by its frame number")
    return int(stem)


def check_columns(root: Path, units: Iterable[Unit], columns: int, release: str) -> None:
    """Raise CatalogError when the first ground truth has another number of columns: it is another release."""
    for unit in units:
        if unit.source.endswith(GROUND_TRUTH):
            first = read_text(root / unit.source).partition("\n")[0]
            found = first.count(",") + 1
            if first.strip() and found != columns and found in KNOWN_COLUMNS:
                raise CatalogError(
                    f"{root / unit.source}: {found} columns, {release} has {columns}: "
                    f"use the adapter {KNOWN_COLUMNS[found]}"
                )
            return
