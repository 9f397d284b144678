"""PRW whose annotators took people and images out themselves: what `forget` must equal."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.prw import Prw
from data_catalog.rows import Rows


class Edited(Prw):
    """The people's rows are ignore regions, their queries are gone, and so are the images."""

    def __init__(self, people: Collection[str], images: Collection[str] = ()) -> None:
        self.people = people
        self.images = images

    def discover(self, root: Path, options: Options) -> Layout:
        layout = super().discover(root, options)
        units = (
            unit for unit in layout.units if not any(Path(name).name in self.images for name in unit.images)
        )
        return replace(layout, units=tuple(units))

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        for rows in super().read(root, unit, options):
            for block in rows._boxes:
                gone = [person in self.people for person in block.columns["person_id"]]
                for name in ("person_id", "person_id_raw"):
                    values = zip(block.columns[name], gone, strict=True)
                    block.columns[name] = [None if flag else value for value, flag in values]
                block.columns["ignore"] = gone
                block.columns["ignore_reason"] = ["forgotten" if flag else None for flag in gone]
            for block in rows._queries:
                asked = zip(block.columns["person_id"], block.columns["image_id"], strict=True)
                kept = [
                    at
                    for at, (person, image) in enumerate(asked)
                    if person not in self.people and image not in self.images
                ]
                block.length = len(kept)
                for name, values in block.columns.items():
                    if not isinstance(values, str):
                        block.columns[name] = [values[at] for at in kept]
            yield rows
