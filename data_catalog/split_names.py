"""What files and folders say about their split: `instances_val2017.json`, `valid/`, `site_b/`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

SPLITS = ("train", "val", "test")
DEFAULT = "train"
_WORDS = {"training": "train", "valid": "val", "validation": "val", "validate": "val", "testing": "test"}
SPLIT_WORDS = frozenset({*SPLITS, *_WORDS})
"""Folders that are called so hold a part of a dataset."""
_OTHER_WORDS = frozenset(
    {"value", "values", "valley", "interval", "intervals", "retrieval", "approval", "arrival", "carnival"}
    | {"festival", "latest", "contest", "fastest", "greatest", "constraint", "constraints", "strain"}
)
"""English words that only look as if they named a split."""
_NAMES_NOTHING = frozenset(
    {"annotation", "annotations", "anno", "annos", "coco", "data", "dataset", "default", "all", "export"}
    | {"gt", "image", "images", "img", "imgs", "instances", "json", "label", "labels", "result", "results"}
    | {"person", "persons", "people", "keypoints", "captions", "bbox", "boxes", "detection", "detections"}
)
_KIND = re.compile(r"(instances|person_keypoints|captions)_(.+)")
"""How COCO names a file of annotations, and after it the set of images."""


def known_split(name: str) -> str | None:
    """train, val or test where a name says so in any spelling: `Train`, `valid`, `val2017`, `minival`."""
    words = re.findall(r"[^\W\d_]+", name.lower())
    said = {_WORDS.get(word, word) for word in words}
    exact = [split for split in SPLITS if split in said]
    if exact:
        return exact[0]
    plain = [word for word in words if word not in _OTHER_WORDS]
    close = [s for s in SPLITS if any(word.startswith(s) or word.endswith(s) for word in plain)]
    return close[0] if close else None


def splits_of(sources: Sequence[str]) -> list[str]:
    """The split of each annotation file, by its name or else by its folder.

    A name that says neither train, val nor test is a split of its own where COCO's naming says so
    (`instances_NAME.json`), where files beside it are named by their splits, or where each file has a folder
    of its own.
    """
    known = [_known(source) for source in sources]
    named = {_folder(source) for source, split in zip(sources, known, strict=True) if split}
    folders = {_last_folder(source) for source in sources}
    found = []
    for source, split in zip(sources, known, strict=True):
        stem, folder = PurePosixPath(source).stem, _last_folder(source)
        after = _KIND.fullmatch(stem)
        own = after[2] if after else stem if _folder(source) in named else ""
        if not own or _says_nothing(own):
            own = folder if len(folders) > 1 else ""
        found.append(split or own or DEFAULT)
    return found


def _known(source: str) -> str | None:
    stem = known_split(PurePosixPath(source).stem)
    return stem or known_split(_last_folder(source))


def _folder(source: str) -> str:
    return PurePosixPath(source).parent.as_posix()


def _last_folder(source: str) -> str:
    """The nearest folder whose name says something; blank where there is none."""
    parts = PurePosixPath(source).parent.parts
    return next((part for part in reversed(parts) if not _says_nothing(part)), "")


def _says_nothing(name: str) -> bool:
    return all(word in _NAMES_NOTHING for word in re.findall(r"[^\W\d_]+", name.lower()))
