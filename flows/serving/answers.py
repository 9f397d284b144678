"""What the HTTP interface takes and gives, as OpenAPI tells programs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.search.judgements import PersonName
from flows.serving.limits import Limits

Box = tuple[float, float, float, float]
Row = Annotated[int, Field(ge=0, le=2**31 - 1, description="Row of a person in the index.")]
_TIME = "2024-05-01T12:00 or, in videos, seconds or H:MM:SS."
_NUMBER = r"-?\d{1,7}(?:\.\d{1,6})?"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class About(_Body):
    """The index. version: changes when the index does, and rows with it; links carry it."""

    version: str
    people: int
    files: int
    cameras: list[str]
    first_time: str | None
    last_time: str | None
    has_videos: bool
    names: list[str]
    max_upload_bytes: int
    max_upload_pixels: int
    max_matches: int


class Shown(_Body):
    """A person in the index. box: x1, y1, x2, y2 in pixels of the image. time_code: seconds, in a video."""

    row: int
    image: str
    box: Box
    score: float
    camera: str | None
    time: str | None
    time_code: float | None
    track: int | None


class ShownMatch(Shown):
    """similarity: what the model says. verdict: what a person said, which does not change it."""

    rank: int
    similarity: float
    verdict: Literal["confirmed"] | None


class Example(_Body):
    """A scene to start from, by one of its people."""

    row: int
    image: str
    people: int


class SceneAnswer(_Body):
    """One image or frame of the index with all people in it."""

    image: str
    width: int
    height: int
    camera: str | None
    time: str | None
    people: list[Shown]


class PersonInPicture(_Body):
    """person: from 1, best first. box: x1, y1, x2, y2 in pixels of the picture."""

    person: int
    box: Box
    score: float


class Picture(_Body):
    """A picture that was sent, and the people in it. picture: names it in searches while it is in memory."""

    picture: str
    width: int
    height: int
    people: list[PersonInPicture]


class Query(_Body):
    """What was searched for. shots: pictures of the person that the query was made of."""

    row: int | None
    picture: str | None
    person: int | None
    box: Box | None
    name: str | None
    shots: int


class SearchAnswer(_Body):
    """Matches, best first. hidden: rejected rows that were left out."""

    version: str
    query: Query
    matches: list[ShownMatch]
    hidden: int


class JudgementRequest(_Body):
    """Confirm or reject people of the index for a named person, or take a verdict back."""

    name: PersonName
    verdict: Literal["confirmed", "rejected", "withdrawn"]
    rows: Annotated[list[Row], Field(min_length=1, max_length=1000)]
    version: Annotated[str | None, Field(description="Refuse if the index has changed since.")] = None


class JudgedPerson(_Body):
    """What holds for a person now. missing: judged shots that the index does not have any more."""

    name: str
    confirmed: list[Shown]
    rejected: list[Shown]
    missing: int


class SearchRequest(_Body):
    """Who is searched for (row; picture with person, box or whole_image; a name alone) and the filters."""

    row: Row | None = None
    picture: Annotated[
        str | None, Field(max_length=64, description="The token of a picture that was sent.")
    ] = None
    person: Annotated[
        int | None, Field(ge=1, le=10_000, description="Number of the person in the picture, from 1.")
    ] = None
    box: Annotated[
        str | None,
        Field(pattern=rf"^{_NUMBER}(,{_NUMBER}){{3}}$", description="x1,y1,x2,y2 in pixels of the picture."),
    ] = None
    whole_image: Annotated[bool, Field(description="The picture is a crop of the person.")] = False
    name: Annotated[
        PersonName | None, Field(description="Use what was confirmed and rejected for this person.")
    ] = None
    camera: Annotated[list[str], Field(max_length=100, description="Only these cameras.")] = []
    after: Annotated[str | None, Field(max_length=40, description=f"At or after this time: {_TIME}")] = None
    before: Annotated[str | None, Field(max_length=40, description=f"Before this time: {_TIME}")] = None
    top: Annotated[int, Field(ge=1, le=Limits.most_matches)] = 24
    own_image: Annotated[bool, Field(description="Whether the query's own image may match.")] = False
    every_frame: Annotated[
        bool, Field(description="In videos, every frame of a track instead of the best.")
    ] = False
    version: Annotated[str | None, Field(description="Refuse if the index has changed since.")] = None
