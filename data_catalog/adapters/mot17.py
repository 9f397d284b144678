"""MOT17 and MOT17Det (Milan et al. 2016): video sequences, identities within one sequence only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_catalog.adapters import motchallenge as mot
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.published import LOESCH_2019, Published
from data_catalog.rows import Rows
from data_catalog.schema import EXCLUDED, INVALID, SCOPE_SEQUENCE

DETECTORS = ("DPM", "FRCNN", "SDP")
PEDESTRIAN = 1
IGNORED_CLASSES: dict[int, str] = {
    2: "person_on_vehicle",
    7: "static_person",
    8: "distractor",
    12: "reflection",
    13: "crowd",
}
OTHER_CLASSES: dict[int, str] = {
    3: "car",
    4: "bicycle",
    5: "motorbike",
    6: "non_motorised_vehicle",
    9: "occluder",
    10: "occluder_on_ground",
    11: "occluder_full",
}
COLUMNS = 9

FULL_SIZE = {"train.images": 5_316, "train.people": 112_297}
ICIP_2019 = Published(LOESCH_2019, FULL_SIZE, edition="MOT17Det")


class Mot17:
    """Rows of gt.txt: frame, track, x, y, w, h (1-based, amodal), flag, class, visibility.

    MOT17 holds each sequence three times, once for each public detector, with the same ground truth: one is
    read. Class 1 with flag 1 is a person to find; people who do not count and what looks like people are
    ignore regions; other classes go to the rejects as `excluded`.
    """

    name = "mot17"
    version = 2
    published = (ICIP_2019,)
    options: Mapping[str, str] = {"detector": "of the three copies of a sequence, read DPM, FRCNN or SDP"}

    def discover(self, root: Path, options: Options) -> Layout:
        wanted = options.get("detector")
        if wanted is not None and wanted not in DETECTORS:
            raise CatalogError(f"option detector={wanted!r}: choose one of {', '.join(DETECTORS)}")
        units = [
            mot.sequence_unit(root, split, folder)
            for split, folders in mot.sequence_folders(root).items()
            for folder in _one_copy_each(folders, wanted)
        ]
        mot.check_columns(root, units, COLUMNS, "MOT17")
        edition = _edition([unit.source.split("/")[1] for unit in units])
        return Layout(tuple(units), edition=edition, expected={} if edition == "MOT20" else FULL_SIZE)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        taken: list[mot.Row] = []
        if unit.source.endswith(mot.GROUND_TRUTH):
            found = list(mot.read_rows(root / unit.source, rows, columns=(COLUMNS,)))
            taken = [row for row in found if _is_taken(row, rows)]
        ids = mot.add_images(rows, root, unit, {row.frame for row in taken})
        _add_boxes(rows, unit, taken, ids)
        yield rows


def _edition(folders: list[str]) -> str:
    if any(folder.startswith("MOT20") for folder in folders):
        return "MOT20"
    return "MOT17" if any(mot.sequence_name(folder) != folder for folder in folders) else "MOT17Det"


def _one_copy_each(folders: list[str], wanted: str | None) -> list[str]:
    copies: dict[str, list[str]] = {}
    for folder in folders:
        copies.setdefault(mot.sequence_name(folder), []).append(folder)
    if wanted is None:
        return [names[0] for names in copies.values()]
    chosen = [name for names in copies.values() for name in names if name.endswith(f"-{wanted}")]
    if len(chosen) != len(copies):
        raise CatalogError(f"option detector={wanted!r}: not every sequence has a folder '-{wanted}'")
    return chosen


def _is_taken(row: mot.Row, rows: Rows) -> bool:
    kind = row.tail[1]
    if kind in OTHER_CLASSES:
        rows.reject(EXCLUDED, "not_a_person", f"class {kind:g}: {OTHER_CLASSES[int(kind)]}", row.line)
        return False
    if kind != PEDESTRIAN and kind not in IGNORED_CLASSES:
        rows.reject(INVALID, "class_unknown", f"class {kind:g}", row.line)
        return False
    return True


def _add_boxes(rows: Rows, unit: Unit, taken: list[mot.Row], ids: dict[int, str]) -> None:
    kinds = [int(row.tail[1]) for row in taken]
    flags = [row.tail[0] for row in taken]
    ignored = [kind != PEDESTRIAN or flag == 0 for kind, flag in zip(kinds, flags, strict=True)]
    reasons = [
        None if not ignore else IGNORED_CLASSES.get(kind, "flag_0")
        for ignore, kind in zip(ignored, kinds, strict=True)
    ]
    sequence = mot.sequence_name(unit.source.split("/")[1])
    rows.boxes(
        [ids[row.frame] for row in taken],
        np.array([row.box for row in taken]).reshape(-1, 4),
        unit.split,
        [row.line for row in taken],
        category=[IGNORED_CLASSES.get(kind, "person") for kind in kinds],
        category_raw=kinds,
        ignore=ignored,
        ignore_reason=reasons,
        person_id=[
            None if ignore else f"{sequence}/{row.track}" for ignore, row in zip(ignored, taken, strict=True)
        ],
        person_id_raw=[str(row.track) for row in taken],
        person_scope=SCOPE_SEQUENCE,
        visibility=[row.tail[2] for row in taken],
    )
