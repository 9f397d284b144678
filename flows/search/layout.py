"""The files of an index, and the columns of its tables.

model/            the exported model that found the people
index.json        what the index is: format, model, settings, places of scenes
people.parquet    one row per person, in the order of scenes, frames and scores
sources.parquet   one row per file that was read; only updates need it
embeddings.zarr   float16 (people, dimensions), row by row as people.parquet
SHA256SUMS        digests of these files; the model has its own
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from flows.errors import ConfigError

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


class Finding(TypedDict):
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

    def finding(self) -> Finding:
        """The settings as arguments of `PersonSearchNet.search`."""
        return Finding(
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_per_image=self.max_per_image,
        )


class Place(BaseModel):
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
    places: tuple[Place, ...] = ()
    sources: int = 0
    people: int = 0
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
        said = f"there is no index {place}"
    elif is_model:
        said = f"{place} is a model, not an index"
    else:
        said = f"{place} is not an index: it {f'has no {DESCRIPTION}' if place.is_dir() else 'is a file'}"
    model, out = (str(place), "INDEX") if is_model and place.exists() else ("CONFIG", str(place))
    command = shlex.join(["personsearch", "index", "SCENES", "--model", model, "--out", out])
    return ConfigError(f"{said}; build one: {command}")


def read_description(folder: Path) -> Description:
    """Read `index.json`. Raises ConfigError when the folder holds no index that this version reads."""
    file = folder / DESCRIPTION
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_index(folder) from error
    except ValueError as error:
        raise ConfigError(f"{file} is damaged: {error}; build the index again") from error
    found = body.get("format") if isinstance(body, dict) else None
    if found != FORMAT:
        raise ConfigError(f"{file} has format {found}; this version reads format {FORMAT}")
    try:
        return Description.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{file} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}; build the index again"
        ) from error
