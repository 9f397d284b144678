"""What a person said of matches: confirmed or rejected for a named person, kept in a file of their own.

The file has one JSON object per line and is only ever appended to. A judgement names the picture by its
content, the frame and the box, so it survives updates and moves of the index.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from data_catalog.row_tables import corners
from flows.errors import ConfigError
from flows.search.index import Index
from personsearch_core.evaluation.matching import iou
from personsearch_core.models.descriptions import first_problem
from storage import durable
from storage.locks import exclusive
from storage.reading import parse_json, read_regular

SUFFIX = ".judgements.jsonl"
Verdict = Literal["confirmed", "rejected", "withdrawn"]
PersonName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$"),
]
_MIN_IOU = 0.7
"""A box of an index that was built again, on another device say, differs a little."""


class Judgement(BaseModel):
    """One verdict on one match. sha256: of the file. frame: of a video. box: x1, y1, x2, y2 in pixels.

    image: where the file was, for who reads the judgements; it is not looked up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    at: AwareDatetime
    person: PersonName
    verdict: Verdict
    image: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    frame: int | None = None
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Judged:
    """What holds for one person now, as rows of an index.

    rejected: with the rows of the same tracks and of copies of the same file. missing: confirmed or rejected
    shots that the index does not have (any more).
    """

    confirmed: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    missing: int = 0


def beside(index: Path) -> Path:
    """The file of judgements that belongs to an index unless another is named."""
    folder = index.absolute()
    return folder.with_name(f"{folder.name}{SUFFIX}")


class Judgements:
    """The judgements in a file, which need not exist yet.

    Examples
    --------
    >>> import tempfile
    >>> judgements = Judgements(Path(tempfile.mkdtemp()) / "mine.jsonl")
    >>> judgements.names()
    ()
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, index: Index, person: str, verdict: Verdict, rows: Sequence[int]) -> None:
        """Judge rows of an index for a person; on the disk on return. The last verdict on a shot holds.

        Raises ConfigError for a row that the index does not have, or a name that cannot be one.
        """
        lines = [judgement.model_dump_json() for judgement in _judge(index, person, verdict, rows)]
        durable.make_folder(self.file.absolute().parent)
        with exclusive(self.file.with_name(f".{self.file.name}.lock"), what=str(self.file)):
            with self.file.open("a+b") as file:
                file.seek(0)
                content = file.read()
                whole = _without_cut_line(content)
                file.truncate(len(whole))
                newline = "" if not whole or whole.endswith(b"\n") else "\n"
                file.write((newline + "".join(f"{line}\n" for line in lines)).encode())
                file.flush()
                os.fsync(file.fileno())
            durable.flush(self.file.absolute().parent)

    def forget(self, contents: Collection[str]) -> int:
        """Delete the judgements on files with these contents (SHA-256), durably; returns how many there were.

        Raises ConfigError if a line is damaged.
        """
        if not self.file.exists():
            return 0
        with exclusive(self.file.with_name(f".{self.file.name}.lock"), what=str(self.file)):
            known = self.read()
            kept = [each for each in known if each.sha256 not in contents]
            if len(kept) < len(known):
                durable.write(self.file, "".join(f"{each.model_dump_json()}\n" for each in kept))
        return len(known) - len(kept)

    def read(self) -> list[Judgement]:
        """All judgements, oldest first; a last line that a crash cut short is left out.

        Raises ConfigError if another line is damaged.
        """
        if not self.file.exists():
            return []
        lines = _without_cut_line(read_regular(self.file)).split(b"\n")
        return [self._parsed(number, line) for number, line in enumerate(lines, 1) if line.strip()]

    def names(self) -> tuple[str, ...]:
        """The people for whom shots are confirmed or rejected now, sorted."""
        return tuple(sorted({each.person for each in self.standing()}))

    def standing(self, person: str | None = None) -> list[Judgement]:
        """The judgements that hold: of each shot the last one for a person, unless it was withdrawn."""
        last: dict[object, Judgement] = {}
        for each in self.read():
            if person in (None, each.person):
                shot = each.person, each.sha256, each.frame, tuple(map(round, each.box))
                last.pop(shot, None)
                last[shot] = each
        return [each for each in last.values() if each.verdict != "withdrawn"]

    def of(self, index: Index, person: str) -> Judged:
        """What holds for a person, as rows of an index: `index.search(shots=confirmed, exclude=left_out)`."""
        standing = self.standing(person)
        places = _Places(index, standing)
        confirmed: list[int] = []
        rejected: list[int] = []
        left_out: set[int] = set()
        missing = 0
        for each in standing:
            rows = places.rows(each)
            missing += not rows
            if each.verdict == "confirmed":
                confirmed += rows[:1]
            else:
                rejected += rows[:1]
                left_out.update(rows, *(rows_of_track(index, row) for row in rows))
        return Judged(tuple(confirmed), tuple(rejected), tuple(sorted(left_out - {*confirmed})), missing)

    def _parsed(self, number: int, line: bytes) -> Judgement:
        try:
            return Judgement.model_validate_json(line)
        except ValidationError as error:
            what = first_problem(error)
            raise ConfigError(f"{self.file}, line {number}: {what}; correct or delete the line") from error


def rows_of_track(index: Index, row: int) -> list[int]:
    """All rows of the track of a row in a video; none if it has no track."""
    tracks = index.table["track"]
    track = tracks[row]
    if not track.is_valid:
        return []
    rows: list[int] = np.flatnonzero(pc.equal(tracks, track).fill_null(False).to_numpy()).tolist()
    return rows


class _Places:
    """Finds the rows of an index that show what a judgement names."""

    def __init__(self, index: Index, judgements: Iterable[Judgement]) -> None:
        self._table = index.table
        self._source = index.table["source"].to_numpy()
        self._frame = index.table["frame"].fill_null(-1).to_numpy()
        self._sources: dict[str, list[int]] = {}
        wanted = pa.array(sorted({judgement.sha256 for judgement in judgements}), pa.string())
        digests = index.sources["sha256"].combine_chunks()
        for number in np.flatnonzero(pc.is_in(digests, wanted).to_numpy(zero_copy_only=False)).tolist():
            self._sources.setdefault(digests[number].as_py(), []).append(number)

    def rows(self, judgement: Judgement) -> list[int]:
        """The best row in each file with the judgement's content."""
        frame = -1 if judgement.frame is None else judgement.frame
        found = []
        for source in self._sources.get(judgement.sha256, ()):
            rows = np.flatnonzero((self._source == source) & (self._frame == frame))
            if len(rows):
                overlap = self._overlap(rows, judgement.box)
                found += [int(rows[overlap.argmax()])] if overlap.max() >= _MIN_IOU else []
        return found

    def _overlap(self, rows: NDArray[np.int64], box: Sequence[float]) -> NDArray[np.float32]:
        there = self._table.take(rows)
        boxes = corners(there)
        wanted = np.repeat(np.array([box], boxes.dtype), len(rows), axis=0)
        return iou(boxes, wanted)


def _judge(index: Index, person: str, verdict: Verdict, rows: Sequence[int]) -> Iterable[Judgement]:
    at = datetime.now(UTC)
    for row in rows:
        told = index.row(row)
        try:
            yield Judgement(
                at=at,
                person=person,
                verdict=verdict,
                image=str(index.path(row)),
                sha256=index.sources["sha256"][told["source"]].as_py(),
                frame=told["frame"],
                box=index.box(row),
            )
        except ValidationError as error:
            raise ConfigError(f"the name {person!r}: {error.errors()[0]['msg']}") from error


def _without_cut_line(content: bytes) -> bytes:
    """The content of a file without the last line if a crash cut it short."""
    start = content.rfind(b"\n") + 1
    try:
        parse_json(content[start:] or b"{}")
    except ValueError:
        return content[:start]
    return content
