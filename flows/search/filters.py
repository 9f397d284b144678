"""Which people of an index may match: by camera, by time, and without those that are left out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.errors import ConfigError

if TYPE_CHECKING:
    from flows.search.index import Index

When = datetime | str | float | None
"""A time of day and date, or seconds from the start of a video; as text in ISO 8601 or as H:MM:SS."""

_CODE = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")


@dataclass(frozen=True)
class Filters:
    """See `Index.search`."""

    cameras: tuple[str, ...] = ()
    after: When = None
    before: When = None
    exclude: tuple[int | str | Path, ...] = ()

    def kept(self, index: Index) -> NDArray[np.bool_] | None:
        """(people,) bool, or None to keep all. Raises ConfigError for an unknown camera, time or row."""
        table = index.table
        masks = [_of_cameras(index, self.cameras)] if self.cameras else []
        for given, name, compare in (
            (self.after, "after", pc.greater_equal),
            (self.before, "before", pc.less),
        ):
            if given is not None:
                value = parse_time(given, name)
                column = table["time" if isinstance(value, datetime) else "time_code"]
                if len(table) and column.null_count == len(table):
                    raise ConfigError(f"{name}: {_without_times(given, value)}")
                masks.append(_as_mask(compare(column, pa.scalar(value, column.type))))
        if self.exclude:
            masks.append(_without(index, self.exclude))
        return np.logical_and.reduce(masks) if masks else None


def parse_time(given: datetime | str | float, name: str) -> datetime | float:
    """A datetime without zone (the camera's own time), or seconds from the start of a video.

    Raises ConfigError if it is neither; `name` says which filter it is.
    """
    if isinstance(given, datetime):
        return given.replace(tzinfo=None)
    if isinstance(given, str):
        if code := _CODE.fullmatch(given.strip()):
            hours, minutes, seconds = code.groups(default="0")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        try:
            return datetime.fromisoformat(given.strip()).replace(tzinfo=None)
        except ValueError:
            pass
    try:
        seconds_alone = float(given)
    except ValueError:
        seconds_alone = math.nan
    if not math.isfinite(seconds_alone):
        raise ConfigError(
            f"{name}: {given!r} is not a time: write 2024-05-01T12:00 or, in a video, seconds or H:MM:SS"
        )
    return seconds_alone


def _without_times(given: When, value: datetime | float) -> str:
    """Why a filter by this time can match nothing."""
    if isinstance(value, datetime):
        return "nothing in the index has a date and time"
    return f"{given} is a time code, and the index has no videos: write a time such as 2024-05-01T12:00"


def rows_of_images(index: Index, images: Sequence[str | Path]) -> NDArray[np.bool_]:
    """(people,) bool: who was seen in these files, given by their paths."""
    wanted = set()
    for image in images:
        path = Path(image).absolute()
        for number, place in enumerate(index.places):
            wanted |= {(number, os.path.relpath(path, place.root)), (number, str(path))}
    names = index.table["image"].combine_chunks()
    found = np.zeros(len(index), bool)
    place_column = index.table["place"].to_numpy()
    for place_number in {number for number, _ in wanted}:
        own = [name for number, name in wanted if number == place_number]
        codes = np.flatnonzero(np.isin(names.dictionary.to_numpy(zero_copy_only=False), own))
        found |= np.isin(names.indices.to_numpy(), codes) & (place_column == place_number)
    return found


def _of_cameras(index: Index, cameras: Sequence[str]) -> NDArray[np.bool_]:
    known = index.cameras
    for camera in cameras:
        if camera not in known:
            near = get_close_matches(camera, known)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known) or 'none'}"
            raise ConfigError(f"camera {camera!r} is not in the index; {hint}")
    column = index.table["camera"].combine_chunks()
    codes = np.flatnonzero(np.isin(column.dictionary.to_numpy(zero_copy_only=False), list(cameras)))
    return np.isin(column.indices.fill_null(-1).to_numpy(), codes)


def _without(index: Index, exclude: Sequence[int | str | Path]) -> NDArray[np.bool_]:
    rows = [each for each in exclude if isinstance(each, int)]
    if wrong := [row for row in rows if not 0 <= row < len(index)]:
        raise ConfigError(f"exclude: there is no person {wrong[0]} in the index")
    left_out = rows_of_images(index, [each for each in exclude if not isinstance(each, int)])
    left_out[rows] = True
    return ~left_out


def _as_mask(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False), bool)
