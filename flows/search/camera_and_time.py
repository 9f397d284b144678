"""Camera and time of a picture, from its name, its folders and its EXIF: the rule is in docs/search.md."""

from __future__ import annotations

import io
import re
from datetime import datetime
from pathlib import PurePosixPath

from PIL import Image

_NAMED_CAMERA = re.compile(r"(?:^|[_\-. ])(c\d+)(?:s\d+)?(?=_)|(?:^|[_\-. ])(cam(?:era)?[_\-. ]?\d+)", re.I)
_GENERIC_FOLDERS = frozenset(
    {"img", "img1", "image", "images", "jpegimages", "frame", "frames", "jpg", "jpeg", "png", "photos"}
    | {"pictures", "scene", "scenes", "data", "train", "test", "val", "gallery", "query", "video", "videos"}
)
_STAMP = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)[T_\-. ]?"
    r"(\d\d)([-_.:h]?)(\d\d)\6(\d\d)(?:[.,_]?(\d{3}))?(?!\d)"
)
_DATE = re.compile(r"[\d\-_.T: ]+")
_EXIF_IFD, _TAKEN, _TAKEN_FRACTION = 0x8769, 0x9003, 0x9291


def camera_of(image: str, *, video: bool = False) -> str | None:
    """The camera of a picture, by its path in its place.

    1. `c1s1_000151.jpg`, `cam2_...`, `camera-3...`: the name itself says so.
    2. Otherwise the nearest folder that is neither generic (`images`, `frames`, `img1` ...) nor a date.
    3. Otherwise, for a video, its name without a time in it: recorders start a file every hour.

    Examples
    --------
    >>> camera_of("frames/c1s1_000151.jpg"), camera_of("entrance/2024-05-01/a.jpg"), camera_of("a.jpg")
    ('c1', 'entrance', None)
    >>> camera_of("gate_20240501_120000.mp4", video=True)
    'gate'
    """
    path = PurePosixPath(image)
    if named := _NAMED_CAMERA.search(path.name):
        return (named[1] or named[2]).lower()
    for folder in reversed(path.parts[:-1]):
        if (
            folder not in ("..", "/")
            and folder.lower() not in _GENERIC_FOLDERS
            and not _DATE.fullmatch(folder)
        ):
            return folder
    return (_STAMP.sub("", path.stem).strip("_-. ") or path.stem) if video else None


def time_in_name(image: str) -> datetime | None:
    """The time in a file's name, such as `20240501_120003.jpg` or `cam1-2024-05-01T12-00-03.250.png`.

    Examples
    --------
    >>> time_in_name("a/IMG_20240501_120003.jpg")
    datetime.datetime(2024, 5, 1, 12, 0, 3)
    """
    for stamp in _STAMP.finditer(PurePosixPath(image).stem):
        year, _, month, day, hour, _, minute, second, millisecond = stamp.groups()
        try:
            return datetime.fromisoformat(
                f"{year}-{month}-{day}T{hour}:{minute}:{second}.{millisecond or '000'}"
            )
        except ValueError:
            continue
    return None


def time_taken(encoded: bytes) -> datetime | None:
    """EXIF's DateTimeOriginal in the bytes of an image file; None if it has none, or nonsense."""
    try:
        return _read_time_taken(encoded)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError):
        return None  # EXIF is written by all kinds of programs: what cannot be read says nothing


def _read_time_taken(encoded: bytes) -> datetime | None:
    with Image.open(io.BytesIO(encoded)) as image:
        if image.format == "PNG" and "exif" not in image.info:
            return None  # Pillow would decode all of it in search of EXIF at its end
        tags = image.getexif().get_ifd(_EXIF_IFD)
    if _TAKEN not in tags:
        return None
    taken = datetime.strptime(str(tags[_TAKEN]).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    fraction = str(tags.get(_TAKEN_FRACTION, "")).strip("\0 ")
    return taken.replace(microsecond=int(1e6 * float(f"0.{fraction}"))) if fraction.isdecimal() else taken
