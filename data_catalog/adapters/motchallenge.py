"""The rows of MOTChallenge's gt.txt and the frames that they belong to, in all its releases and writers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_catalog.adapters.mot_sequences import (
    GROUND_TRUTH,
    LONGEST_SEQUENCE,
    has_truth,
    info_of,
    name_of,
    place_of,
)
from data_catalog.adapters.protocol import Unit
from data_catalog.errors import CatalogError
from data_catalog.files import frame_number, numbered_lines, open_file
from data_catalog.ids import whole
from data_catalog.rows import Rows
from data_catalog.schema import INVALID, SCOPE_SEQUENCE

KNOWN_COLUMNS = {9: "mot17", 10: "mot15"}
"""Columns of gt.txt, and the adapter that reads them."""
_HEAD = 1 << 16
"""Bytes of a gt.txt that are looked at before it is read."""


@dataclass(frozen=True)
class TruthRow:
    """One line of gt.txt; the box is x1, y1, x2, y2, 0-based."""

    line: int
    frame: int
    track: int
    box: tuple[float, float, float, float]
    tail: tuple[float, ...]


def read_rows(
    path: Path, rows: Rows, *, columns: tuple[int, ...], first_pixel: int = 1
) -> Iterator[TruthRow]:
    """The lines of a gt.txt, coordinates made 0-based; unreadable ones become rejects of `rows`.

    Columns are separated by commas, or by blanks or semicolons; commas at the end mean nothing.
    """
    for line_number, line in numbered_lines(path):
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
    place, info, sequence = place_of(unit), info_of(root, place_of(unit)), name_of(unit)
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
    shown = [unit for unit in units if unit.annotated and unit.images]
    bare = [unit for unit in shown if not (has_truth(unit) and _head(root / unit.source))]
    if not bare:
        return ()
    images, first = sum(len(unit.images) for unit in bare), bare[0]
    which = f"such as {name_of(first)} of split {first.split!r}"
    note = f"sequences without a row in {GROUND_TRUTH}: {len(bare):,}, {which}"
    return (f"{note}; their {images:,} images count as images without people",)


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
    with open_file(path) as file:
        text = file.read(_HEAD).decode("utf-8-sig", "replace")
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
