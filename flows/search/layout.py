"""The files of an index, and the columns of its tables.

model/            the exported model that found the people
index.json        what the index is: format, model, settings, places of scenes
people.parquet    one row per person, in the order of scenes, frames and scores
sources.parquet   one row per file that was read; only updates need it
embeddings.zarr   float16 (people, dimensions), row by row as people.parquet
SHA256SUMS        digests of these files; the model has its own
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from data_catalog.row_tables import COORDINATES
from flows.errors import ConfigError, missing
from personsearch_core.models.descriptions import first_problem
from storage.reading import parse_json, read_regular, require_regular

FORMAT = 1
DESCRIPTION = "index.json"
MODEL = "model"
PEOPLE = "people.parquet"
SOURCES = "sources.parquet"
EMBEDDINGS = "embeddings.zarr"

Fraction = Annotated[float, Field(ge=0, le=1)]

PEOPLE_SCHEMA = pa.schema(
    [
        ("source", pa.int32()),  # row of sources.parquet
        ("place", pa.int16()),  # which of the description's places the image lies in
        ("image", pa.dictionary(pa.int32(), pa.string())),  # path in its place
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("score", pa.float32()),
        ("camera", pa.dictionary(pa.int32(), pa.string())),
        ("time", pa.timestamp("ms")),  # local time of the camera
        ("frame", pa.int32()),  # of a video: number among its decoded frames, from 0
        ("time_code", pa.float64()),  # of a video: seconds from its start
        ("track", pa.int32()),  # of a video: number of the track, unique in the index
    ]
)
SOURCES_SCHEMA = pa.schema(
    [
        ("place", pa.int16()),
        ("image", pa.string()),
        ("kind", pa.string()),  # image or video
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("frames", pa.int32()),  # images that were searched for people: 1, or those of a video
        ("next_frame", pa.int32()),  # of a video under way: where to go on; else null
        ("camera", pa.string()),
        ("time", pa.timestamp("ms")),
        ("fault", pa.string()),  # why a video ends early
    ]
)


class DetectionRule(TypedDict):
    """Which detections count as people."""

    score_threshold: float
    nms_threshold: float
    max_per_image: int


class Settings(BaseModel):
    """How people are found: one index has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    score_threshold: Fraction = 0.5
    nms_threshold: Fraction = 0.5
    max_per_image: PositiveInt = 100
    every: PositiveInt | None = None
    """Every n-th frame of a video."""
    per_second: PositiveFloat | None = None
    """Frames per second of a video; unless `every` is given, 1."""

    def finding(self) -> DetectionRule:
        """The settings as arguments of `PersonSearchNet.search`."""
        return DetectionRule(
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_per_image=self.max_per_image,
        )


class IndexedPlace(BaseModel):
    """Something that was indexed: a folder, a list of files, or one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["folder", "list", "file"]
    path: str
    """Absolute, when it was indexed."""
    from_index: str
    """Relative to the index, so that both can be moved together."""

    @property
    def root(self) -> Path:
        """The folder that paths of images are relative to."""
        return Path(self.path) if self.kind == "folder" else Path(self.path).parent


class Description(BaseModel):
    """`index.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    model: str
    """Digest of the model's weights and recipes."""
    dimensions: PositiveInt
    settings: Settings
    places: tuple[IndexedPlace, ...] = ()
    sources: NonNegativeInt = 0
    people: NonNegativeInt = 0
    content: str = ""
    """Digest of what was indexed; people.parquet and embeddings.zarr carry it, too."""
    removed: tuple[str, ...] = ()
    """SHA-256 of files that were removed for good, and of their paths; sorted."""


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index, or one whose last update is still to be put in place."""
    return (folder / DESCRIPTION).is_file() or (folder / ".next" / "complete").is_file()


def no_index(place: Path) -> ConfigError:
    """What to say of a place that holds no index: it may be that of a model, or of nothing."""
    is_model = place.suffix in (".yaml", ".yml") or (place / "model.json").is_file()
    if not place.exists():
        said = missing(place, "index")
    elif is_model:
        said = f"{place} is a model, not an index"
    else:
        said = f"{place} is not an index: it {f'has no {DESCRIPTION}' if place.is_dir() else 'is a file'}"
    model = str(place) if is_model and place.exists() else "CONFIG"
    is_free = not place.exists() or (place.is_dir() and not any(place.iterdir()))
    out = str(place) if is_free else "INDEX"
    command = shlex.join(["personsearch", "index", "SCENES", "--model", model, "--out", out])
    return ConfigError(f"{said}; build one: {command}")


def read_description(folder: Path) -> Description:
    """Read `index.json`. Raises ConfigError when the folder holds no index that this version reads."""
    file = folder / DESCRIPTION
    try:
        body = parse_json(read_regular(file))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_index(folder) from error
    except ValueError as error:
        raise ConfigError(f"{file} is damaged: {error}; rebuild the index") from error
    found = body.get("format") if isinstance(body, dict) else None
    if found != FORMAT:
        raise ConfigError(f"{file} has format {found}; this version reads format {FORMAT}")
    try:
        return Description.model_validate(body)
    except ValidationError as error:
        raise ConfigError(f"{file} is damaged: {first_problem(error)}; rebuild the index") from error


_ALWAYS_GIVEN = ("source", "place", "image", *COORDINATES, "score")


def read_people(folder: Path, description: Description) -> pa.Table:
    """The people of an index. Raises ConfigError when they are damaged, or are those of another index."""
    file = folder / PEOPLE
    table = _read(file, PEOPLE_SCHEMA, ["image", "camera"])
    content = (table.schema.metadata or {}).get(b"content", b"").decode(errors="replace")
    if content != description.content:
        raise ConfigError(f"{file} does not belong to the index: rebuild the index")
    unknown = [name for name in _ALWAYS_GIVEN if table[name].null_count]
    strange = [name for name in COORDINATES if not pc.all(pc.is_finite(table[name])).as_py()]
    if len(table) and (unknown or strange):
        raise ConfigError(
            f"{file} is damaged: {(unknown or strange)[0]} is missing or no number in some rows"
        )
    for name, count in (("place", len(description.places)), ("source", description.sources)):
        ends = pc.min_max(table[name]).as_py()
        if len(table) and not 0 <= ends["min"] <= ends["max"] < count:
            raise ConfigError(f"{file} is damaged: it names {name} {ends['max']} of {count}")
    return table


def read_sources(folder: Path, description: Description) -> pa.Table:
    """The files of an index. Raises ConfigError when they are damaged."""
    table = _read(folder / SOURCES, SOURCES_SCHEMA)
    if len(table) != description.sources:
        raise ConfigError(
            f"{folder / SOURCES} does not belong to the index: it has {len(table)} files, not "
            f"{description.sources}; rebuild the index"
        )
    return table


def _read(file: Path, schema: pa.Schema, encoded: list[str] | None = None) -> pa.Table:
    """A table of an index, of exactly these columns."""
    try:
        require_regular(file)
        table = pq.read_table(file, read_dictionary=encoded).combine_chunks()
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{file} is damaged: {said}; rebuild the index") from error
    if not table.schema.equals(schema):
        raise ConfigError(f"{file} does not have the columns of an index: rebuild the index")
    return table
