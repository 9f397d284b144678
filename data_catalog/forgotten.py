"""People and images that an ingest leaves out. They are known by salted hashes alone, never by name.

A forgotten person's boxes become ignore regions without an identity: the pixels are still there, so that a
detector must not learn them as background. A forgotten image is left out altogether.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.protocol import Layout
from data_catalog.row_tables import corners, ignored, with_column
from data_catalog.rows import Tables

FORGOTTEN = "forgotten"
"""The `ignore_reason` of a forgotten person's boxes."""
FILLS = 0.9
"""A box with this share of its image's area: the image shows hardly anything but the person, and goes."""
_IDENTITY = ("person_id", "person_id_raw", "person_scope")
_WORD = re.compile(r"[\w.+-]+")

Kind = Literal["person", "image", "root"]


def hashed(salt: str, kind: Kind, name: str) -> str:
    """HMAC-SHA256 of a name, in hex. The salt is hex, too."""
    message = f"{kind}\0{name}".encode("utf-8", "surrogatepass")
    return hmac.new(bytes.fromhex(salt), message, hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Forgotten:
    """Whom an ingest of one dataset forgets.

    Parameters
    ----------
    salt
        Hex digits that the hashes were made with.
    people
        Hashes of `person_id`.
    images
        Hashes of `image_id` and of `rel_path`.

    Examples
    --------
    >>> someone = Forgotten("00ff", frozenset({hashed("00ff", "person", "7")}))
    >>> someone.is_person("7"), someone.is_person("8")
    (True, False)
    """

    salt: str = ""
    people: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    _known: dict[tuple[Kind, str], bool] = field(default_factory=dict, repr=False, compare=False)

    def __bool__(self) -> bool:
        return bool(self.people or self.images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of it, for keys."""
        parts = [self.salt, sorted(self.people), sorted(self.images)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def is_person(self, person_id: str | None) -> bool:
        return person_id is not None and self._has("person", person_id, self.people)

    def is_image(self, name: str | None) -> bool:
        """Whether this is the id or the path of a forgotten image."""
        return name is not None and self._has("image", name, self.images)

    def among(self, column: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray:
        """Which values of a column of names are forgotten; null is not."""
        text = column.cast(pa.string())
        hashes, is_one = (self.people, self.is_person) if kind == "person" else (self.images, self.is_image)
        names = [name for name in text.unique().to_pylist() if is_one(name)] if hashes else []
        return pc.is_in(text, value_set=pa.array(names, pa.string()))

    def person_boxes(self, boxes: pa.Table) -> pa.ChunkedArray:
        """Which boxes are of forgotten people, by the source's own word where an identity was taken away."""
        raw = pc.and_(pc.is_null(boxes["person_id"]), self.among(boxes["person_id_raw"], "person"))
        return pc.or_(self.among(boxes["person_id"], "person"), raw)

    def names_one(self, text: str) -> bool:
        """Whether one of the words of a sentence is a forgotten person or image."""
        words = {*_WORD.findall(text), *text.split()}
        return any(self.is_person(word) or self.is_image(word) for word in words)

    def _has(self, kind: Kind, name: str, hashes: frozenset[str]) -> bool:
        if not hashes:
            return False
        if (kind, name) not in self._known:
            self._known[kind, name] = hashed(self.salt, kind, name) in hashes
        return self._known[kind, name]


NO_ONE = Forgotten()


def without_images(layout: Layout, forgotten: Forgotten) -> tuple[Layout, frozenset[str]]:
    """The layout without units that show forgotten images alone, and the paths of these units and images."""
    left_out: set[str] = set()
    units = []
    for unit in layout.units:
        lost = {name for name in unit.images if forgotten.is_image(name)}
        left_out |= lost
        if lost and len(lost) == len(set(unit.images)):
            left_out |= {unit.source, *unit.also}
        else:
            units.append(unit)
    left_out |= {name for name in layout.images if forgotten.is_image(name)}
    return replace(layout, units=tuple(units)), frozenset(left_out)


class Forgetting:
    """Takes forgotten people and images out of checked rows.

    Boxes come with their images or after them, galleries with their queries or after them.
    """

    def __init__(self, forgotten: Forgotten) -> None:
        self._forgotten = forgotten
        self._image_ids: set[str] = set()
        self._queries: dict[str, set[str]] = {}
        self.paths: set[str] = set()
        """Of the images that were left out."""

    def apply(self, parts: Iterable[Tables]) -> Iterator[Tables]:
        """The parts without them; a part that has none of them is passed on unchanged."""
        for tables in parts:
            yield self._without(tables)

    def _without(self, tables: Tables) -> Tables:
        person = self._forgotten.person_boxes(tables.boxes)
        self._note_images(tables.images, tables.boxes, person)
        boxes = tables.boxes
        if pc.any(person).as_py():
            boxes = ignored(boxes, person, FORGOTTEN, _IDENTITY)
        queries = tables.queries
        lost = pc.or_(self._of_images(queries), self._forgotten.among(queries["person_id"], "person"))
        for row in queries.select(["protocol", "query_id"]).filter(lost).to_pylist():
            self._queries.setdefault(row["protocol"], set()).add(row["query_id"])
        return Tables(
            images=_kept(tables.images, self._of_images(tables.images)),
            boxes=_kept(boxes, self._of_images(boxes)),
            queries=_kept(queries, lost),
            gallery=_kept(tables.gallery, self._of_gallery(tables.gallery)),
            rejects=self._rejects(_kept(tables.rejects, self._of_images(tables.rejects))),
        )

    def _note_images(self, images: pa.Table, boxes: pa.Table, person: pa.ChunkedArray) -> None:
        """Remember the images that go: those that are named, and those that one of these boxes fills."""
        named = self._forgotten.among(images["image_id"], "image")
        named = pc.or_(named, self._forgotten.among(images["rel_path"], "image"))
        filled = filled_images(images, boxes.filter(person))
        lost = images.filter(pc.or_(named, pc.is_in(images["image_id"], value_set=filled)))
        self._image_ids |= set(lost["image_id"].to_pylist())
        self.paths |= set(lost["rel_path"].to_pylist())

    def _of_images(self, table: pa.Table) -> pa.ChunkedArray:
        """Which rows belong to an image that goes."""
        column = table["image_id"]
        noted = pc.is_in(column.cast(pa.string()), value_set=pa.array(sorted(self._image_ids), pa.string()))
        return pc.or_(noted, self._forgotten.among(column, "image"))

    def _of_gallery(self, gallery: pa.Table) -> pa.ChunkedArray:
        lost = self._of_images(gallery)
        for protocol, query_ids in self._queries.items():
            asked = pc.is_in(
                gallery["query_id"].cast(pa.string()), value_set=pa.array(sorted(query_ids), pa.string())
            )
            lost = pc.or_(lost, pc.and_(asked, pc.equal(gallery["protocol"].cast(pa.string()), protocol)))
        return lost

    def _rejects(self, rejects: pa.Table) -> pa.Table:
        """The rejects, with any text that names one of them replaced."""
        details = rejects["detail"].to_pylist()
        said = [FORGOTTEN if self._forgotten.names_one(detail) else detail for detail in details]
        if said == details:
            return rejects
        return with_column(rejects, "detail", pa.array(said, pa.string()))


def filled_images(images: pa.Table, boxes: pa.Table) -> pa.Array:
    """Ids of the images that one of the boxes fills: crops of a person, named after it in many datasets."""
    at = pc.index_in(boxes["image_id"], value_set=images["image_id"].combine_chunks())
    here = boxes.filter(pc.is_valid(at))
    at = pc.drop_null(at)
    width, height = (pc.fill_null(images[name].take(at), 1 << 24).to_numpy() for name in ("width", "height"))
    x1, y1, x2, y2 = corners(here).T
    covered = np.clip(np.minimum(x2, width) - np.maximum(x1, 0), 0, None) * np.clip(
        np.minimum(y2, height) - np.maximum(y1, 0), 0, None
    )
    return here["image_id"].filter(pa.array(covered >= FILLS * width * height)).combine_chunks()


def _kept(table: pa.Table, lost: pa.ChunkedArray) -> pa.Table:
    """The other rows; no dictionary keeps a word that only the lost ones had."""
    if not pc.any(lost).as_py():
        return table
    kept = table.filter(pc.invert(lost))
    for target in kept.schema:
        if pa.types.is_dictionary(target.type):
            kept = with_column(kept, target.name, kept[target.name].cast(target.type.value_type))
    return kept
