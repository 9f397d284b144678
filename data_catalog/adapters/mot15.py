"""MOT15 (Leal-Taixe et al. 2015): ten columns, no classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_catalog.adapters import motchallenge as mot
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.rows import Rows
from data_catalog.schema import SCOPE_SEQUENCE

COLUMNS = 10


class Mot15:
    """Rows of gt.txt: frame, track, x, y, w, h (1-based), flag, and three world coordinates.

    Flag 0 makes an ignore region. seqinfo.ini may hold only a name and a length.
    """

    name = "mot15"
    version = 2
    options: Mapping[str, str] = {}

    def discover(self, root: Path, options: Options) -> Layout:
        folders = mot.sequence_folders(root)
        units = [mot.sequence_unit(root, split, name) for split, names in folders.items() for name in names]
        mot.check_columns(root, units, COLUMNS, "MOT15")
        return Layout(tuple(units), edition="MOT15")

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        found: list[mot.Row] = []
        if unit.source.endswith(mot.GROUND_TRUTH):
            found = list(mot.read_rows(root / unit.source, rows, columns=(COLUMNS,)))
        ids = mot.add_images(rows, root, unit, {row.frame for row in found})
        sequence = mot.sequence_name(unit.source.split("/")[1])
        ignored = [row.tail[0] == 0 for row in found]
        rows.boxes(
            [ids[row.frame] for row in found],
            np.array([row.box for row in found]).reshape(-1, 4),
            unit.split,
            [row.line for row in found],
            ignore=ignored,
            ignore_reason=["flag_0" if ignore else None for ignore in ignored],
            person_id=[
                None if ignore else f"{sequence}/{row.track}"
                for ignore, row in zip(ignored, found, strict=True)
            ],
            person_id_raw=[str(row.track) for row in found],
            person_scope=SCOPE_SEQUENCE,
        )
        yield rows
