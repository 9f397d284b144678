"""What a search found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.search.index import Index
    from personsearch_core.search.people import Person


@dataclass(frozen=True)
class Match:
    """One person of the index.

    rank: from 1. person_row: row in the index. image: the file. box: x1, y1, x2, y2 in its pixels. score: of
    the detection. similarity: to the query, as a dot product. camera: None if unknown. time: ISO 8601, in a
    video without a date its time code H:MM:SS.mmm, None if unknown. track: number in a video. time_code:
    seconds from the start of a video.
    """

    rank: int
    person_row: int
    image: str
    box: tuple[float, float, float, float]
    score: float
    similarity: float
    camera: str | None = None
    time: str | None = None
    track: int | None = None
    time_code: float | None = None

    def as_json(self) -> dict[str, Any]:
        """What `--json` gives; a match in a video also says its time code and track."""
        body = {
            "rank": self.rank,
            "image": self.image,
            "box": list(self.box),
            "score": self.score,
            "similarity": self.similarity,
            "camera": self.camera,
            "time": self.time,
        }
        if self.time_code is not None:
            body |= {"time_code": self.time_code, "track": self.track}
        return body


@dataclass(frozen=True)
class Results:
    """Matches of a query, best first; or, when the query picture shows several people, those to choose from.

    query: what was searched for, as JSON.
    """

    query: dict[str, Any]
    matches: tuple[Match, ...] = ()
    choices: tuple[Person, ...] = ()
    index: Index | None = field(default=None, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """`{"query", "matches"}`, or `{"people"}` to choose from."""
        if self.choices:
            return {"people": [person.as_json() for person in self.choices]}
        return {"query": self.query, "matches": [match.as_json() for match in self.matches]}

    def _repr_html_(self) -> str:
        from flows.search.pictures import results_html

        return results_html(self)


def box_of(person: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """The box of someone of whom `Index.row` says this: x1, y1, x2, y2 in pixels of the image."""
    return person["x1"], person["y1"], person["x2"], person["y2"]


def matches_of(index: Index, rows: list[int], similarities: list[float]) -> tuple[Match, ...]:
    """Matches out of rows of an index and their similarities, best first."""
    return tuple(
        Match(
            rank=rank,
            person_row=row,
            image=str(index.path_of(told)),
            box=box_of(told),
            score=told["score"],
            similarity=similarity,
            camera=told["camera"],
            time=time_text(told["time"], told["time_code"]),
            track=told["track"],
            time_code=told["time_code"],
        )
        for rank, (row, told, similarity) in enumerate(
            zip(rows, index.rows(rows), similarities, strict=True), 1
        )
    )


def time_text(time: datetime | None, time_code: float | None) -> str | None:
    """A time as `Match.time` tells it."""
    if time is not None:
        return time.isoformat(timespec="milliseconds" if time.microsecond else "seconds")
    if time_code is None:
        return None
    minutes, seconds = divmod(round(time_code, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:06.3f}"


def shown_path(path: str) -> str:
    """A path for people: relative to the current folder if it lies in it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
