"""Where sequences lie in the format of MOTChallenge, in all its releases and writers; their seqinfo.ini."""

from __future__ import annotations

import configparser
import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_catalog.adapters.protocol import Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.errors import CatalogError
from data_catalog.files import folders, image_files, path_fault, read_text, walk
from data_catalog.ids import whole
from data_catalog.split_names import DEFAULT, WHOLE_NAMES

GROUND_TRUTH, LABELS, INFO, IMAGES = "gt/gt.txt", "gt/labels.txt", "seqinfo.ini", "img1"
LAYOUTS = (
    "<split>/<sequence>/ with gt/gt.txt, seqinfo.ini or img1 (MOTChallenge, DanceTrack)",
    "dataset/<split>/<sequence>/ (SportsMOT)",
    "<sequence>/ or the root itself with gt/gt.txt (CVAT, datumaro)",
)
OTHER = (
    *(f"*{name}" for name in ("det/det.txt", "gt/gt_*.txt", "seqmap*.txt")),
    *(f"{folder}splits_txt/*" for folder in ("", "*/")),
)
"""Files of the format that nothing is read from: detections, other cuts of the ground truth, lists."""
_ORDER = {"train": 0, "test": 2}
"""Of splits; the others come between, by name."""
LONGEST_SEQUENCE = 1_000_000
"""Frames; a seqinfo.ini that claims more is damaged."""


@dataclass(frozen=True)
class SequencePlace:
    """The folder of a sequence under the root ('' for the root itself), and its split."""

    folder: str
    split: str

    def inside(self, name: str) -> str:
        """The path of a file of the sequence."""
        return f"{self.folder}/{name}" if self.folder else name

    @property
    def name(self) -> str:
        """The folder's own name; '' where it is the root, whose name must not count."""
        return self.folder.rpartition("/")[2]


@dataclass(frozen=True)
class SequenceInfo:
    """What seqinfo.ini says; only its length is always there."""

    length: int = 0
    image_folder: str = IMAGES
    image_suffix: str = ".jpg"
    width: int | None = None
    height: int | None = None
    name: str = ""


def find_sequences(root: Path) -> list[SequencePlace]:
    """Where the sequences lie. The name of a folder above them is their split.

    Raises:
        CatalogError: if no sequence is found.
    """
    if (root / GROUND_TRUTH).is_file():
        return [SequencePlace("", DEFAULT)]
    found: list[SequencePlace] = []
    for top in folders(root):
        if _is_sequence(root / top):
            found.append(SequencePlace(top, top if top.lower() in WHOLE_NAMES else DEFAULT))
        else:
            found += _inside(root, top, top)
    if not found:
        found = [
            place for split in folders(root, "dataset") for place in _inside(root, f"dataset/{split}", split)
        ]
    if not found:
        raise refusal(root, "MOTChallenge dataset", LAYOUTS, _nearest(root))
    return sorted(found, key=lambda place: _ORDER.get(place.split, 1))


def _inside(root: Path, folder: str, split: str) -> list[SequencePlace]:
    inside = [SequencePlace(f"{folder}/{name}", split) for name in folders(root, folder)]
    return [place for place in inside if _is_sequence(root / place.folder)]


def _is_sequence(folder: Path) -> bool:
    return any((folder / name).exists() for name in (GROUND_TRUTH, INFO, IMAGES))


def _nearest(root: Path) -> str:
    """What is there of the format all the same."""
    files = walk(root)
    truths = [path for path in files if path.endswith((GROUND_TRUTH, INFO))]
    if truths:
        return f"{truths[0]}: give a folder further down as the root"
    gt = [path for path in files if path.endswith("gt.txt")]
    if gt:
        return f"{gt[0]}: a sequence's ground truth is called {GROUND_TRUTH}"
    return what_is_there(files)


def sequence_units(root: Path, places: Sequence[SequencePlace]) -> list[Unit]:
    """The units of sequences; two of one name in different splits carry their split's name before theirs."""
    infos = [info_of(root, place) for place in places]
    names = [
        sequence_name(place.name) or info.name or "sequence"
        for place, info in zip(places, infos, strict=True)
    ]
    often = Counter(names)
    return [
        _unit(root, place, info, f"{place.split}/{name}" if often[name] > 1 else name)
        for place, info, name in zip(places, infos, names, strict=True)
    ]


def _unit(root: Path, place: SequencePlace, info: SequenceInfo, name: str) -> Unit:
    """A sequence's gt.txt, or its seqinfo.ini or images without ground truth (test)."""
    files = [file for file in (GROUND_TRUTH, INFO, LABELS) if (root / place.inside(file)).is_file()]
    has_source = bool(files) and files[0] != LABELS
    return Unit(
        source=place.inside(files[0] if has_source else info.image_folder),
        split=place.split,
        images=image_files(root, place.inside(info.image_folder)),
        also=tuple(place.inside(file) for file in (files[1:] if has_source else files)),
        parameters=() if name == sequence_name(place.name) else (name,),
        has_file=has_source,
        annotated=GROUND_TRUTH in files,
    )


def place_of(unit: Unit) -> SequencePlace:
    """The folder of a unit's sequence."""
    for name in (GROUND_TRUTH, INFO):
        if unit.source == name or unit.source.endswith(f"/{name}"):
            return SequencePlace(unit.source.removesuffix(name).rstrip("/"), unit.split)
    return SequencePlace(unit.source.rpartition("/")[0], unit.split)


def has_truth(unit: Unit) -> bool:
    """Whether a unit's sequence has ground truth."""
    return unit.source == place_of(unit).inside(GROUND_TRUTH)


def name_of(unit: Unit) -> str:
    """The name of a unit's sequence, which no other sequence of the dataset has."""
    return unit.parameters[0] if unit.parameters else sequence_name(place_of(unit).name)


def info_of(root: Path, place: SequencePlace) -> SequenceInfo:
    """What a sequence's seqinfo.ini says; the defaults where it has none."""
    path = root / place.inside(INFO)
    return read_info(path) if path.is_file() else SequenceInfo()


def read_info(path: Path) -> SequenceInfo:
    """Read a seqinfo.ini; MOT15's may hold only name and seqLength.

    Raises:
        CatalogError: when it is damaged.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read_text(path))
        section = parser["Sequence"]
        length = whole(section.get("seqLength", "0"))
        width, height = (whole(section[key]) if section.get(key) else None for key in ("imWidth", "imHeight"))
    except (configparser.Error, KeyError, ValueError) as error:
        raise CatalogError(f"{path}: not a seqinfo.ini: {str(error).splitlines()[0]}") from error
    folder, suffix = section.get("imDir", IMAGES).strip("/") or IMAGES, section.get("imExt", ".jpg")
    for name in (folder, f"1{suffix}"):
        if fault := path_fault(name):
            raise CatalogError(f"{path}: imDir or imExt: {fault}: {name!r}")
    if not 0 <= length <= LONGEST_SEQUENCE:
        raise CatalogError(f"{path}: seqLength {length} is not between 0 and {LONGEST_SEQUENCE}")
    name = section.get("name", "").strip()
    return SequenceInfo(length, folder, suffix, width, height, "" if path_fault(name) else name)


def sequence_name(folder: str) -> str:
    """`MOT17-02` of `MOT17-02-FRCNN`: the public detector is not part of the scene."""
    stem, _, last = folder.rpartition("-")
    return stem if last in ("DPM", "FRCNN", "SDP") and stem else folder


def other_files(left_out: Iterable[SequencePlace] = ()) -> tuple[str, ...]:
    """Patterns of what belongs to the format and is not read, with all files of sequences left out."""
    return (*OTHER, *(f"{glob.escape(place.folder)}/*" for place in left_out))
