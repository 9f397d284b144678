"""Which adapter knows a root's layout; and where none does, which is nearest to it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from data_catalog.adapters.protocol import Adapter, Options, adapter_names, load_adapter
from data_catalog.errors import CatalogError
from data_catalog.files import is_archive, is_image, is_left_behind, need_folder
from data_catalog.split_names import SPLIT_WORDS

MOST_ENTRIES = 200
"""Entries of a folder that are looked at: folders of images and labels are alike from one to the next."""
MOST_LEVELS = 4
MOST_ABOVE = 12
"""Entries of a folder above the root that is looked at: more are hardly one dataset, and take long."""
LEAST_NEARNESS = 0.5
"""Of a weight: less is what most formats have in common, such as a folder of images."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inventory:
    """What lies in a root, as far as its formats go: names of folders, and suffixes with their counts.

    `files` are names of files that are not images. Large folders are counted in part.
    """

    folders: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    suffixes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """`512 .jpg, 2 .csv`, the most first."""
        most = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))[:4]
        return ", ".join(f"{count} {suffix}" for suffix, count in most) or "no files"


def fitting_adapter(root: Path, options: Options) -> str:
    """The adapter whose layout the root has.

    An adapter that is broken is left out, with a warning: it may be of a package that has nothing to do with
    this root.

    Raises:
        CatalogError: when none fits, naming those that were tried and the nearest one, or several do.
    """
    need_folder(root)
    fitting, refused = _tried(root, options)
    if len(fitting) == 1:
        return fitting[0]
    faults = [refused[name][1] for name in _tried(root, {})[0] if name in refused] if options else []
    if faults:  # of the options alone: without them the format is clear
        raise CatalogError(f"{root}: {'; '.join(faults)}")
    raise CatalogError(f"{root}: {_why_none(root, fitting, refused)}")


def _why_none(root: Path, fitting: list[str], refused: Mapping[str, tuple[Adapter, str]]) -> str:
    """Why the root's format is not known, and what to do."""
    what = f"it could be {' or '.join(fitting)}" if fitting else "no adapter knows its layout"
    whole = _above(root)
    if whole:
        return f"{what}; {whole}"
    if fitting:
        return f"{what}; name the format with --adapter ({', '.join(adapter_names())})"
    held = inventory(root)
    near = nearest(held, refused)
    if near is not None:
        what += f"; the nearest is {near!r}, which says: {refused[near][1]}. The folder holds {held}"
    else:
        packed = any(is_archive(suffix) for suffix in held.suffixes)
        what += f": it holds {held}{' (unpack it first)' if packed else ''}, and no format is near"
    return (
        f"{what}. Looked for: {', '.join(refused)}. Name the format with --adapter, which says what is "
        "missing; `personsearch datasets list` describes each, and `personsearch datasets new NAME` starts "
        "an adapter of your own"
    )


def _tried(root: Path, options: Options) -> tuple[list[str], dict[str, tuple[Adapter, str]]]:
    """The adapters that fit, and those that do not, with what they say."""
    fitting: list[str] = []
    refused: dict[str, tuple[Adapter, str]] = {}
    for name in adapter_names():
        try:
            adapter = load_adapter(name)
        except CatalogError as error:
            log.warning("left out: %s", error)
            continue
        try:
            adapter.discover(root, options)
        except CatalogError as error:
            refused[name] = adapter, str(error)
            continue
        except Exception as error:  # third-party code may raise anything
            log.warning("left out: adapter %r: %s: %s", name, type(error).__name__, error)
            continue
        fitting.append(name)
    return fitting, refused


def _above(root: Path) -> str:
    """A hint at the dataset that the root is a part of by its name, such as `images`; else an empty text."""
    folder, parts = root.resolve(), _parts_of_datasets()
    for _ in range(MOST_LEVELS):
        if folder.name.lower() not in parts:
            return ""
        folder = folder.parent
        try:
            if len(list(islice(folder.iterdir(), MOST_ABOVE + 1))) > MOST_ABOVE:
                return ""
        except OSError:  # what cannot be listed is not the dataset either
            return ""
        fitting, _refused = _tried(folder, {})
        if len(fitting) == 1:
            return f"the folder {folder} above it looks like {fitting[0]}: give that one, or --adapter"
    return ""


def _parts_of_datasets() -> frozenset[str]:
    """Names of the folders, and of files, by which adapters know their datasets, in small letters."""
    names: set[str] = set(SPLIT_WORDS)
    for name in adapter_names():
        try:
            names.update(mark.lower() for mark in getattr(load_adapter(name), "marks", ()))
        except CatalogError:  # told where the root itself is tried
            continue
    return frozenset(names)


def inventory(root: Path) -> Inventory:
    """What lies in the root, down to `MOST_LEVELS` folders."""
    folders: set[str] = set()
    files: set[str] = set()
    suffixes: Counter[str] = Counter()
    pending = [(root, 0)]
    while pending:
        folder, level = pending.pop()
        try:
            with os.scandir(folder) as entries:
                listed = [entry for entry, _ in zip(entries, range(MOST_ENTRIES), strict=False)]
        except OSError:  # what cannot be listed tells nothing of the format; reading it will say why
            continue
        for entry in listed:
            if is_left_behind(entry.name):
                continue
            if entry.is_dir():
                folders.add(entry.name.lower())
                if level < MOST_LEVELS:
                    pending.append((folder / entry.name, level + 1))
            else:
                suffixes[PurePosixPath(entry.name).suffix.lower() or entry.name] += 1
                if not is_image(entry.name):
                    files.add(entry.name.lower())
    return Inventory(frozenset(folders), frozenset(files), dict(suffixes))


def nearest(held: Inventory, refused: Mapping[str, tuple[Adapter, str]]) -> str | None:
    """The adapter most of whose `marks` lie there; None where no adapter has enough of them.

    A file's name counts three times, a folder's twice, a kind of annotation file once; a mark counts less,
    the more adapters have it.
    """
    marks = {
        name: {mark.lower() for mark in getattr(adapter, "marks", ())}
        for name, (adapter, _) in refused.items()
    }
    used = Counter(mark for of_one in marks.values() for mark in of_one)
    weights = {
        **{suffix.lstrip("."): 1 for suffix in held.suffixes if not is_image(f"x{suffix}")},
        **dict.fromkeys(held.folders, 2),
        **dict.fromkeys(held.files, 3),
    }
    scores = {
        name: sum(weight / used[mark] for mark, weight in weights.items() if mark in of_one)
        for name, of_one in marks.items()
    }
    best = max(sorted(scores), key=lambda name: scores[name], default=None)
    return best if best is not None and scores[best] >= LEAST_NEARNESS else None
