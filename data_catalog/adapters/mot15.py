"""MOT15 (Leal-Taixe et al. 2015): ten columns, no classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from data_catalog.adapters import mot_sequences
from data_catalog.adapters import motchallenge as mot
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.rows import Rows

COLUMNS = (10,)


class Mot15:
    """Rows of gt.txt: frame, track, x, y, w, h (1-based), flag, and three world coordinates.

    Flag 0 makes an ignore region; negative tracks are unknown. seqinfo.ini may hold only a name and a length.
    """

    name = "mot15"
    version = 3
    marks = ("img1", "gt", "gt.txt", "seqinfo.ini")
    options: Mapping[str, str] = {}

    def discover(self, root: Path, options: Options) -> Layout:
        units = mot_sequences.sequence_units(root, mot_sequences.find_sequences(root))
        mot.check_columns(root, units, COLUMNS, "MOT15")
        return Layout(
            tuple(units),
            edition="MOT15",
            notes=mot.notes_on(root, units),
            other=(*mot_sequences.other_files(), f"*{mot_sequences.LABELS}"),
        )

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        found: list[mot.TruthRow] = []
        if mot_sequences.has_truth(unit):
            found = list(mot.read_rows(root / unit.source, rows, columns=COLUMNS))
        found, ids = mot.add_images(rows, root, unit, found)
        mot.add_boxes(rows, unit, found, ids, ["flag_0" if row.tail[0] == 0 else None for row in found])
        yield rows
