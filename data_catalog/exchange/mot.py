"""Splits of snapshots in MOTChallenge's layout: SPLIT/SEQUENCE/ with img1/, gt/gt.txt and seqinfo.ini."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_catalog.adapters.mot17 import CLASSES, IGNORED, PERSON
from data_catalog.adapters.mot_sequences import GROUND_TRUTH, IMAGES, INFO, LONGEST_SEQUENCE, sequence_name
from data_catalog.errors import CatalogError
from data_catalog.exchange.parts import (
    Exported,
    ExportPart,
    ImagesMode,
    batches_of,
    export_parts,
    place_images,
    rows_of,
    write_text,
)
from data_catalog.files import path_fault
from data_catalog.row_tables import COORDINATES
from data_catalog.schema import SCOPE_DATASET

_HELD = frozenset(
    {*COORDINATES, "ignore", "person_id", "person_id_raw", "visibility", "sequence_id", "frame_index"}
    | {"category", "category_raw", "ignore_reason"}
)
"""With exceptions, which are counted apart."""
_COLUMNS = (
    *("image_id", *COORDINATES, "ignore", "category", "category_raw", "ignore_reason", "visibility"),
    *("person_id", "person_id_raw", "person_scope"),
)
_NUMBERS = {name: number for number, name in CLASSES.items()}
_FLAG_0 = "flag_0"
_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")
Person = tuple[str, str]
"""A sequence, and a person in it."""


@dataclass(frozen=True)
class _Frame:
    """Where an image goes: its sequence's folder, and its number in it."""

    sequence: str
    number: int


def export_mot(parts: Sequence[ExportPart], folder: Path, images: ImagesMode) -> Exported:
    """Write sequences into an empty folder, as MOT17 has them.

    Images without a sequence make one per split, in the order of their names. Tracks are the numbers that the
    dataset itself gave where it gave numbers, else people are numbered in the order of their names.

    Raises:
        CatalogError: when a sequence's name cannot be a folder's, two images are one frame, an image is
            missing, or a file cannot be written.
    """

    def write(part: ExportPart) -> tuple[int, Mapping[str, int]]:
        frames = _frames(part)
        homes = {each.sequence: folder / part.split / each.sequence for each in frames}
        suffixes = [PurePosixPath(path).suffix for path in part.rel_paths()]
        targets = [
            homes[each.sequence] / IMAGES / f"{each.number:06d}{suffix}"
            for each, suffix in zip(frames, suffixes, strict=True)
        ]
        place_images(part, targets, images)
        lost = _write_truth(part, frames, homes)
        _write_infos(part, frames, suffixes, homes)
        return len(part.view.boxes), lost | _lost_names(part, frames, images)

    return export_parts(parts, _HELD, write)


def _frames(part: ExportPart) -> list[_Frame]:
    """The place of each image of a part, in the view's order."""
    name = part.view.snapshot.name
    rows = list(rows_of(part.view.images, ["image_id", "sequence_id", "frame_index"]))
    numberless = {row["sequence_id"] for row in rows if row["frame_index"] is None} | {None}
    counts: Counter[str] = Counter()
    found: list[_Frame] = []
    seen: dict[_Frame, str] = {}
    for row in rows:
        sequence = _folder_name(part, row["sequence_id"])
        counts[sequence] += 1
        is_counted = row["sequence_id"] in numberless
        frame = _Frame(sequence, counts[sequence] if is_counted else row["frame_index"])
        if not 0 <= frame.number <= LONGEST_SEQUENCE:
            raise CatalogError(f"{name}: image {row['image_id']}: frame {frame.number} is not one of MOT's")
        if frame in seen:
            raise CatalogError(
                f"{name}: images {seen[frame]} and {row['image_id']} are both frame {frame.number} of "
                f"{frame.sequence}: MOT cannot hold both; export COCO"
            )
        seen[frame] = row["image_id"]
        found.append(frame)
    return found


def _folder_name(part: ExportPart, sequence: str | None) -> str:
    """The sequence's folder; a sequence that is named after its split, too, has that in the folder above."""
    if sequence is None:
        sequence = part.split
    plain = sequence.removeprefix(f"{part.split}/")
    folder = f"{part.prefix}{plain}".replace("/", "-")
    if path_fault(folder) or folder.startswith(".") or sequence_name(folder) != folder:
        name = part.view.snapshot.name
        raise CatalogError(f"{name}: sequence {sequence!r} cannot be the name of a folder of MOT")
    return folder


def _write_truth(part: ExportPart, frames: Sequence[_Frame], homes: dict[str, Path]) -> dict[str, int]:
    """Write each sequence's gt.txt, and say what of its rows was lost.

    A batch of boxes at a time: a split may have millions, of one sequence or of many.
    """
    places = dict(zip(part.view.images["image_id"].to_pylist(), frames, strict=True))
    people = _people(part, places)
    tracks = _tracks(people)
    lost: Counter[str] = Counter()
    for home in homes.values():
        write_text(home / GROUND_TRUTH, ())
    for batch in batches_of(part.view.boxes, _COLUMNS):
        lines: defaultdict[str, list[str]] = defaultdict(list)
        for box in batch:
            frame, kind = places[box["image_id"]], _class(box)
            visibility = 1.0 if box["visibility"] is None else box["visibility"]
            sides = (box["x1"] + 1, box["y1"] + 1, box["x2"] - box["x1"], box["y2"] - box["y1"])
            track, flag = _track(box, frame.sequence, tracks), int(not box["ignore"])
            values = (frame.number, track, *sides, flag, kind, visibility)
            lines[frame.sequence].append(",".join(map(repr, values)))
            lost.update(_lost_of(box, kind, track))
        for sequence, rows in lines.items():
            write_text(homes[sequence] / GROUND_TRUTH, rows, "a")
    return {**lost, **_lost_identities(people, tracks)}


def _people(part: ExportPart, places: dict[str, _Frame]) -> dict[Person, tuple[set[str], str]]:
    """The names that the dataset itself gave each person of a sequence, and where its identity holds."""
    found: dict[Person, tuple[set[str], str]] = {}
    for box in rows_of(part.view.boxes, ["image_id", "person_id", "person_id_raw", "person_scope"]):
        if box["person_id"] is not None:
            person = (places[box["image_id"]].sequence, box["person_id"])
            raw, _ = found.setdefault(person, (set(), box["person_scope"]))
            raw.add(box["person_id_raw"] or "")
    return found


def _tracks(people: dict[Person, tuple[set[str], str]]) -> dict[Person, int]:
    """Everyone's number: the dataset's own where each person of a sequence has one, of its own."""
    own = {person: next(iter(raw)) for person, (raw, _) in people.items() if len(raw) == 1}
    numbers = {(sequence, name) for (sequence, _), name in own.items()}
    if len(numbers) == len(people) and all(_WHOLE.fullmatch(name) for name in own.values()):
        return {person: int(name) for person, name in own.items()}
    ordered = {name: at for at, name in enumerate(sorted({name for _, name in people}), start=1)}
    return {person: ordered[person[1]] for person in people}


def _track(box: dict[str, Any], sequence: str, tracks: dict[Person, int]) -> int:
    """A box's track: -1 for an unknown person; that of an ignore region is whatever the dataset gave it."""
    if box["person_id"] is not None:
        return tracks[sequence, box["person_id"]]
    raw = box["person_id_raw"] or ""
    return int(raw) if box["ignore"] and _WHOLE.fullmatch(raw) else -1


def _class(box: dict[str, Any]) -> int:
    """MOT17's class: of an ignore region what it is, if MOT17 has a name for that; else a person."""
    return _NUMBERS[box["category"]] if box["ignore"] and box["category"] in IGNORED else _NUMBERS[PERSON]


def _lost_of(box: dict[str, Any], kind: int, track: int) -> list[str]:
    """What a row cannot hold of its box."""
    lost = []
    if box["category"] != CLASSES[kind]:
        lost.append("boxes.category")
    if box["category_raw"] not in (None, kind):
        lost.append("boxes.category_raw")
    if box["ignore_reason"] not in (None, CLASSES[kind] if kind != _NUMBERS[PERSON] else _FLAG_0):
        lost.append("boxes.ignore_reason")
    if box["person_id"] is None and box["person_id_raw"] not in (None, str(track)):
        lost.append("boxes.person_id_raw")
    if box["visibility"] is None:
        lost.append("visibilities that are not known, which become 1")
    return lost


def _lost_identities(people: dict[Person, tuple[set[str], str]], tracks: dict[Person, int]) -> dict[str, int]:
    """Identities hold within a sequence, and their names are numbers."""
    sequences = Counter(person for _, person in people)
    scoped = {person for (_, person), (_, scope) in people.items() if scope == SCOPE_DATASET}
    return {
        "identities of the whole dataset, which hold in each sequence alone": sum(
            sequences[person] > 1 for person in scoped
        ),
        "names of identities, which become numbers": sum(
            raw != {str(tracks[person])} for person, (raw, _) in people.items()
        ),
    }


def _write_infos(
    part: ExportPart, frames: Sequence[_Frame], suffixes: Sequence[str], homes: dict[str, Path]
) -> None:
    """Write each sequence's seqinfo.ini; a size that not all of its images share is left out."""
    sizes = list(rows_of(part.view.images, ["width", "height"]))
    for sequence, home in homes.items():
        at = [index for index, frame in enumerate(frames) if frame.sequence == sequence]
        common, _ = Counter(suffixes[index] for index in at).most_common(1)[0]
        lines = ["[Sequence]", f"name={sequence}", f"imDir={IMAGES}"]
        lines.append(f"seqLength={max(frames[index].number for index in at)}")
        (width, height), *others = {(sizes[index]["width"], sizes[index]["height"]) for index in at}
        if not others and width is not None and height is not None:
            lines += [f"imWidth={width}", f"imHeight={height}"]
        write_text(home / INFO, [*lines, f"imExt={common}"])


def _lost_names(part: ExportPart, frames: Sequence[_Frame], images: ImagesMode) -> dict[str, int]:
    """What a part loses of its names, and frames that come up where no files tell which there are."""
    rows = list(rows_of(part.view.images, ["image_id", "sequence_id", "frame_index"]))
    lost = {
        "names of images, which become their sequence's and frame's": sum(
            row["image_id"] != f"{frame.sequence}/{frame.number:06d}"
            for row, frame in zip(rows, frames, strict=True)
        ),
        "names of sequences": len(
            {row["sequence_id"] for row in rows if row["sequence_id"] is not None}
            - {frame.sequence for frame in frames}
        ),
    }
    if images == "none":
        last: dict[str, int] = {}
        for frame in frames:
            last[frame.sequence] = max(last.get(frame.sequence, 0), frame.number)
        extra = sum(last.values()) - len({frame for frame in frames if frame.number})
        lost["frames between those of the dataset, which count as empty images"] = extra
    return lost
