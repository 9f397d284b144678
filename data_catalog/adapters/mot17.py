"""MOT17, MOT17Det, MOT20 (Milan et al. 2016) and what is written like them: DanceTrack, SportsMOT, and the
MOT of CVAT and datumaro. Video sequences, identities within one sequence only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_catalog.adapters import mot_sequences
from data_catalog.adapters import motchallenge as mot
from data_catalog.adapters.mot_sequences import SequencePlace
from data_catalog.adapters.options import first_pixel_option, is_person
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import read_text
from data_catalog.published import LOESCH_2019, Published
from data_catalog.rows import Rows
from data_catalog.schema import EXCLUDED, INVALID

DETECTORS = ("DPM", "FRCNN", "SDP")
PERSON = "person"
CLASSES: dict[int, str] = {
    1: PERSON,
    2: "person_on_vehicle",
    3: "car",
    4: "bicycle",
    5: "motorbike",
    6: "non_motorised_vehicle",
    7: "static_person",
    8: "distractor",
    9: "occluder",
    10: "occluder_on_ground",
    11: "occluder_full",
    12: "reflection",
    13: "crowd",
}
IGNORED = frozenset({"person_on_vehicle", "static_person", "distractor", "reflection", "crowd"})
COLUMNS = 9
COLUMNS_WITH_LABELS = (COLUMNS, COLUMNS + 1)
"""CVAT may write one more, which means nothing."""

FULL_SIZE = {"train.images": 5_316, "train.people": 112_297}
ICIP_2019 = Published(LOESCH_2019, FULL_SIZE, edition="MOT17Det")
_EDITIONS = {
    "MOT20": re.compile(r"MOT20-"),
    "MOT16": re.compile(r"MOT16-"),
    "DanceTrack": re.compile(r"dancetrack[0-9]"),
    "SportsMOT": re.compile(r"v_.+_c[0-9]+$"),
}


class Mot17:
    """Rows of gt.txt: frame, track, x, y, w, h (1-based, amodal), flag, class, visibility.

    MOT17 holds each sequence three times, once for each public detector, with the same ground truth: one is
    read. Class 1 with flag 1 is a person to find; people that do not count and things that look like people
    are ignore regions; other classes go to the rejects as `excluded`. `gt/labels.txt` names the classes
    instead, from 1, as CVAT and datumaro write it: person, pedestrian and people are people. Negative tracks
    are unknown.
    """

    name = "mot17"
    version = 3
    marks = ("img1", "gt", "gt.txt", "seqinfo.ini")
    published = (ICIP_2019,)
    options: Mapping[str, str] = {
        "detector": "of the three copies of a sequence, read DPM, FRCNN or SDP",
        "first_pixel": "1 (default): x and y count from 1, as MOTChallenge's do; 0: from 0, as those of "
        "boxes that were drawn in CVAT",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        wanted = options.get("detector")
        if wanted is not None and wanted not in DETECTORS:
            raise CatalogError(f"option detector={wanted!r}: choose one of {', '.join(DETECTORS)}")
        first_pixel_option(options)
        places = mot_sequences.find_sequences(root)
        read = _one_copy_each(places, wanted)
        units = mot_sequences.sequence_units(root, read)
        for unit in units:
            mot.check_columns(root, [unit], _columns(unit), "MOT17")
        edition = _edition(read)
        return Layout(
            tuple(units),
            edition=edition,
            expected=FULL_SIZE if edition in ("MOT17", "MOT17Det") else {},
            notes=mot.notes_on(root, units),
            other=mot_sequences.other_files(place for place in places if place not in read),
        )

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        taken: list[mot.TruthRow] = []
        classes = _classes(root, unit)
        if mot_sequences.has_truth(unit):
            found = mot.read_rows(
                root / unit.source, rows, columns=_columns(unit), first_pixel=first_pixel_option(options)
            )
            taken = [row for row in found if _is_taken(row, classes, rows)]
        taken, ids = mot.add_images(rows, root, unit, taken)
        kinds = [int(row.tail[1]) for row in taken]
        categories = [classes[kind] for kind in kinds]
        mot.add_boxes(
            rows,
            unit,
            taken,
            ids,
            list(map(_ignore_reason, taken, categories)),
            category=categories,
            category_raw=kinds,
            visibility=[row.tail[2] for row in taken],
        )
        yield rows


def _columns(unit: Unit) -> tuple[int, ...]:
    return COLUMNS_WITH_LABELS if _labels(unit) else (COLUMNS,)


def _labels(unit: Unit) -> str | None:
    """The file that names a sequence's classes, if it has one."""
    return next((name for name in unit.also if name.endswith(mot_sequences.LABELS)), None)


def _edition(places: Sequence[SequencePlace]) -> str:
    names = [place.name for place in places]
    for edition, pattern in _EDITIONS.items():
        if any(pattern.match(name) for name in names):
            return edition
    if not any(name.startswith("MOT17-") for name in names):
        return "written like MOT17"
    return "MOT17" if any(mot_sequences.sequence_name(name) != name for name in names) else "MOT17Det"


def _one_copy_each(places: Sequence[SequencePlace], wanted: str | None) -> list[SequencePlace]:
    copies: dict[tuple[str, str], list[SequencePlace]] = {}
    for place in places:
        copies.setdefault((place.split, mot_sequences.sequence_name(place.name)), []).append(place)
    if wanted is None:
        return [same[0] for same in copies.values()]
    chosen = [place for same in copies.values() for place in same if place.name.endswith(f"-{wanted}")]
    if len(chosen) != len(copies):
        raise CatalogError(f"option detector={wanted!r}: not every sequence has a folder '-{wanted}'")
    return chosen


def _classes(root: Path, unit: Unit) -> dict[int, str]:
    """What each class's number means, by MOT17's names where it has one."""
    labels = _labels(unit)
    if labels is None:
        return CLASSES
    names = read_text(root / labels).splitlines()
    return {number: _plain(name) for number, name in enumerate(names, start=1) if name.strip()}


def _plain(label: str) -> str:
    name = re.sub(r"[\s_-]+", "_", label.strip().lower()).replace("motorized", "motorised")
    return PERSON if is_person(name) else name.replace("on_the_ground", "on_ground")


def _is_taken(row: mot.TruthRow, classes: Mapping[int, str], rows: Rows) -> bool:
    kind = row.tail[1]
    meaning = classes.get(int(kind)) if kind.is_integer() else None
    if meaning is None:
        rows.reject(INVALID, "class_unknown", f"class {kind:g}", row.line)
        return False
    if meaning != PERSON and meaning not in IGNORED:
        rows.reject(EXCLUDED, "not_a_person", f"class {kind:g}: {meaning}", row.line)
        return False
    return True


def _ignore_reason(row: mot.TruthRow, category: str) -> str | None:
    if category != PERSON:
        return category
    return "flag_0" if row.tail[0] == 0 else None
