"""Which files an index is made of: the images and videos of folders, of lists, and single ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_catalog.files import is_image, path_fault, read_text, walk
from data_catalog.suggestions import near_file
from flows.errors import ConfigError, missing
from flows.search.layout import IndexedPlace

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv"}
    | {".flv", ".3gp", ".ogv", ".mjpeg", ".mjpg"}
)
LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})

Key = tuple[int, str]
"""The number of a file's place, and its path there."""


@dataclass(frozen=True)
class SceneFile:
    """One file: `image` is its path in its place, `bytes` and `mtime_ns` tell whether it has changed."""

    place: int
    image: str
    path: Path
    kind: Literal["image", "video"]
    bytes: int
    mtime_ns: int

    @property
    def key(self) -> Key:
        return self.place, self.image

    @property
    def stat(self) -> tuple[int, int]:
        return self.bytes, self.mtime_ns


def is_video(path: str | Path) -> bool:
    """Whether a path ends as those of video files do."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def place_of(scenes: Path, index: Path) -> IndexedPlace:
    """The place that a SCENES argument names. Raises ConfigError if it is nothing that can be indexed."""
    path = scenes.absolute()
    kind: Literal["folder", "list", "file"]
    if path.is_dir():
        kind = "folder"
    elif path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        kind = "list"
    elif path.is_file() and (is_image(path.name) or is_video(path)):
        kind = "file"
    else:
        if not path.exists():
            raise ConfigError(f"{missing(scenes)}{near_file(scenes)}")
        raise ConfigError(f"{scenes} is not an image, a video, a list (.txt) or a folder")
    return IndexedPlace(kind=kind, path=str(path), from_index=os.path.relpath(path, index.absolute()))


def located(place: IndexedPlace, index: Path, roots: Mapping[str, Path]) -> IndexedPlace:
    """A place where it is now: as `roots` says by its old path, beside the index, or where it was."""
    if place.path in roots:
        path = roots[place.path].absolute()
    else:
        beside = Path(os.path.normpath(index.absolute() / place.from_index))
        path = beside if beside.exists() else Path(place.path)
    return IndexedPlace(kind=place.kind, path=str(path), from_index=os.path.relpath(path, index.absolute()))


def merged_places(known: Sequence[IndexedPlace], given: Sequence[IndexedPlace]) -> tuple[IndexedPlace, ...]:
    """All places, each once: those that are known first, in their order."""
    return tuple({place.path: place for place in (*known, *given)}.values())


def scan(places: Sequence[IndexedPlace], wanted: Iterable[int]) -> tuple[list[SceneFile], list[str]]:
    """The files of the wanted places in the order of an index, and faults of those that are not there.

    A file that two places hold belongs to the first. Raises ConfigError for a place without images and
    videos, such as an empty mount point.
    """
    found: list[SceneFile] = []
    faults: list[str] = []
    seen: set[str] = set()
    for number in sorted(wanted):
        root, names = places[number].root, _names(places[number])
        if not names:
            raise ConfigError(f"{places[number].path}: there are no images or videos in it")
        for image in names:
            path = root / image
            if (resolved := os.path.realpath(path)) in seen:
                continue
            seen.add(resolved)
            try:
                stat = path.stat()
            except OSError as error:
                faults.append(f"{path}: {error.strerror}")
                continue
            if path_fault(image.removeprefix("/").replace("../", "")) == "the name is not UTF-8":
                faults.append(f"{str(path)!r}: the name is not UTF-8")
                continue
            kind: Literal["image", "video"] = "video" if is_video(image) else "image"
            found.append(SceneFile(number, image, path, kind, stat.st_size, stat.st_mtime_ns))
    found.sort(key=lambda source: source.key)
    return found, faults


def _names(place: IndexedPlace) -> list[str]:
    """Paths of images and videos, relative to the place's root; a list may also have absolute ones."""
    if place.kind == "file":
        return [Path(place.path).name]
    if place.kind == "folder":
        return [name for name in walk(place.root) if is_image(name) or is_video(name)]
    lines = (line.strip() for line in read_text(Path(place.path)).splitlines())
    return [os.path.normpath(line) for line in lines if line and not line.startswith("#")]
