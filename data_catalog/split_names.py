"""What the names of files and folders say about splits: `instances_val2017.json`, `valid/`, `site_b/`."""

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
_CONTAINERS = frozenset(
    {"annotations", "annotation", "images", "image", "jpegimages", "labels", "xml", "xmls", "labels_with_ids"}
)
"""Names of folders that say what is in them, not which split it is."""
_KIND = re.compile(r"(instances|person_keypoints|captions)_(.+)")
"""How COCO names an annotation file, followed by its set of images."""

_WHOLE_NAMES = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("val", "valid", "validation"), "val"
)
WHOLE_NAMES = frozenset({*_WHOLE_NAMES, "test"})
"""Names that cannot mean anything but a split."""
_NUMBERED = re.compile(r"[-_]?[0-9]*$")
_DARKNET = re.compile(r"obj_(.+)_data", re.IGNORECASE)
"""A split's folder as CVAT and datumaro write it for Darknet."""


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


def whole_name_split(name: str) -> str | None:
    """train, val or test where the whole name says so: `Train`, `valid`, `val2017`, `test-dev`,
    `obj_train_data`, but not `my_test_export`, which may hold all splits.
    """
    darknet = _DARKNET.fullmatch(name)
    plain = (darknet[1] if darknet else name).lower()
    return "test" if plain.startswith("test") else _WHOLE_NAMES.get(_NUMBERED.sub("", plain, count=1))


def split_of(name: str) -> str:
    """The split that the name of a folder or list means, or else the name itself, so that what may be a test
    set is not taken for train.
    """
    return known_split(name) or (DEFAULT if name.lower() == "default" else name)


def split_of_path(path: str) -> str:
    """The split of a file by the first of its folders that is not called `images` or the like, else train."""
    parts = PurePosixPath(path).parts[:-1]
    return next((split_of(part) for part in parts if part.lower() not in _CONTAINERS), DEFAULT)


def known_split_of_path(path: str) -> str:
    """The split of a file by the first of its folders that names a split, else train."""
    named = (known_split(part) for part in PurePosixPath(path).parts[:-1])
    return next((split for split in named if split is not None), DEFAULT)


def common_folder(paths: Sequence[str]) -> str:
    """The folders, with '/' at the end, that hold all of the paths and do not name a split."""
    folders = [PurePosixPath(path).parts[:-1] for path in paths]
    shared: list[str] = []
    for parts in zip(*folders, strict=False):
        if known_split(parts[0]) or len(set(parts)) > 1:
            break
        shared.append(f"{parts[0]}/")
    return "".join(shared)


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
    return known_split(PurePosixPath(source).stem) or known_split(_last_folder(source))


def _folder(source: str) -> str:
    return PurePosixPath(source).parent.as_posix()


def _last_folder(source: str) -> str:
    """The nearest folder whose name says something; blank if none does."""
    parts = PurePosixPath(source).parent.parts
    return next((part for part in reversed(parts) if not _says_nothing(part)), "")


def _says_nothing(name: str) -> bool:
    return all(word in _NAMES_NOTHING for word in re.findall(r"[^\W\d_]+", name.lower()))
