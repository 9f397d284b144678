"""What an adapter yields: rows in columns, checked and turned into Arrow tables.

An adapter adds blocks of rows; a block's columns are sequences of one length or single values that hold for
all of its rows. Damaged boxes become rejects here, so every adapter has the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from data_catalog.errors import CatalogError
from data_catalog.row_tables import (
    COORDINATES,
    Column,
    RowBlock,
    arrow_table,
    box_faults,
    box_tables,
    box_text,
)
from data_catalog.schema import BOXES, GALLERY, IMAGES, INVALID, QUERIES, REJECTS
from data_catalog.suggestions import did_you_mean

LARGE = 16_384
"""Rows."""


@dataclass(frozen=True)
class Tables:
    """Checked rows as Arrow tables. `images` lacks what only the ingest knows: dataset, n_boxes, sha256."""

    images: pa.Table
    boxes: pa.Table
    queries: pa.Table
    gallery: pa.Table
    rejects: pa.Table


ADAPTER_IMAGES = pa.schema([f for f in IMAGES if f.name not in ("dataset", "n_boxes", "sha256")])
"""`decoding` and the stated sizes are filled by the ingest, once it has looked at the files."""


_NAMED = {
    "images": ("image_id", "rel_path", "split"),
    "boxes": ("image_id", "xyxy", "split", "source_row"),
    "queries": ("protocol", "query_id", "image_id", "xyxy", "person_id", "source_row"),
    "gallery": ("protocol", "query_id", "image_id", "is_positive"),
}
"""What each kind of row always has."""
_BY_INGEST = {"source_unit", "source_file"}
_MORE = {
    "images": [name for name in ADAPTER_IMAGES.names if name not in {*_NAMED["images"], *_BY_INGEST}],
    "boxes": [name for name in BOXES.names if name not in {*_NAMED["boxes"], *_BY_INGEST, *COORDINATES}],
    "queries": [],
    "gallery": list(COORDINATES),
}
"""What it may have."""
_MEANT = {
    **dict.fromkeys(
        ("identity", "identity_id", "id", "ids", "pid", "person", "people", "track", "track_id"), "person_id"
    ),
    **dict.fromkeys(("label", "labels", "class", "class_name", "cls", "type", "category_name"), "category"),
    **dict.fromkeys(("category_id", "class_id", "label_id"), "category_raw"),
    **dict.fromkeys(("crowd", "iscrowd", "is_crowd", "ignored", "is_ignored", "difficult"), "ignore"),
    **dict.fromkeys(("reason",), "ignore_reason"),
    **dict.fromkeys(("scope",), "person_scope"),
    **dict.fromkeys(("occlusion", "occluded", "vis"), "visibility"),
    **dict.fromkeys(("camera", "cam", "cam_id", "camid"), "camera_id"),
    **dict.fromkeys(("sequence", "seq", "video", "video_id", "clip", "scene", "scene_id"), "sequence_id"),
    **dict.fromkeys(("frame", "frame_id", "frame_number", "frame_no"), "frame_index"),
    **dict.fromkeys(("w", "image_width"), "width"),
    **dict.fromkeys(("h", "image_height"), "height"),
    **dict.fromkeys(("box", "boxes", "bbox", "x1", "y1", "x2", "y2"), "xyxy"),
    **dict.fromkeys(("path", "file", "file_name", "filename"), "rel_path"),
    **dict.fromkeys(("row", "line", "line_number"), "source_row"),
}
"""The schema's word for what people call a column."""


@dataclass
class Rows:
    """Rows of one source file, or of a part of a long one, as an adapter gives them.

    Parameters
    ----------
    source_file
        The file that rows are counted in, relative to the root.
    source_unit
        The unit that they were read from, which the ingest sets; the source file by default.

    Examples
    --------
    >>> rows = Rows("labels.csv")
    >>> rows.images(["a"], ["a.jpg"], "train")
    >>> rows.count()
    1
    """

    source_file: str
    source_unit: str | None = None
    _images: list[RowBlock] = field(default_factory=list)
    _boxes: list[RowBlock] = field(default_factory=list)
    _queries: list[RowBlock] = field(default_factory=list)
    _gallery: list[RowBlock] = field(default_factory=list)
    _rejects: list[RowBlock] = field(default_factory=list)

    def images(
        self, image_id: Sequence[str] | pa.Array, rel_path: Column, split: Column, **more: Column
    ) -> None:
        """Add images.

        Parameters
        ----------
        image_id
            Names, unique in the dataset.
        rel_path
            Paths of the files, relative to the root, with '/'.
        split
            train, val, test or any other name; one value or one per image.
        **more
            width and height as the source states them (pixels), camera_id, sequence_id, frame_index.

        Raises
        ------
        CatalogError
            For a column that images do not have.

        Examples
        --------
        >>> rows = Rows("labels.csv")
        >>> rows.images(["a", "b"], ["images/a.jpg", "images/b.jpg"], "train", camera_id=[1, 2])
        >>> rows.image_count()
        2
        """
        self._check_columns("images", more)
        self._images.append(
            RowBlock(len(image_id), {"image_id": image_id, "rel_path": rel_path, "split": split, **more})
        )

    def boxes(
        self,
        image_id: Column,
        xyxy: ArrayLike,
        split: Column,
        source_row: Sequence[int] | np.ndarray,
        **more: Column,
    ) -> None:
        """Add boxes. Those that are empty, not finite or absurdly large become rejects.

        Parameters
        ----------
        image_id
            The image of each box.
        xyxy
            (n, 4) x1, y1, x2, y2 in pixels: 0-based, x2 and y2 exclusive, unclipped.
        split
            The split of the images; one value or one per box.
        source_row
            (n,) rows of the source file, counted from 1.
        **more
            category, category_raw, ignore, ignore_reason, person_id, person_id_raw, person_scope (default
            `dataset`), visibility (0 to 1), visible_x1 to visible_y2 (pixels), hard, box_id (default
            `<image_id>#<source_row>`).

        Raises
        ------
        CatalogError
            For a column that boxes do not have.

        Examples
        --------
        >>> rows = Rows("labels.csv")
        >>> rows.images(["a"], ["a.jpg"], "train")
        >>> rows.boxes(["a", "a"], [[1, 2, 11, 32], [5, 5, 5, 5]], "train", [1, 2], person_id=["7", None])
        >>> tables = rows.tables()
        >>> tables.boxes["box_id"].to_pylist(), tables.rejects["source_row"].to_pylist()
        (['a#1'], [2])
        """
        self._check_columns("boxes", more)
        boxes = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
        with np.errstate(over="ignore"):
            corners = _corners(boxes.astype(np.float32))
        columns = {"image_id": image_id, "split": split, "source_row": source_row, "xyxy": boxes, **corners}
        defaults = {"category": "person", "ignore": False, "source_file": self.source_file}
        self._boxes.append(RowBlock(len(boxes), {**defaults, **columns, **more}))

    def queries(
        self,
        protocol: str,
        query_id: Sequence[str],
        image_id: Sequence[str],
        xyxy: ArrayLike,
        person_id: Sequence[str],
        source_row: Sequence[int],
        **more: Column,
    ) -> None:
        """Add queries of a protocol; the ingest joins each to its box.

        Parameters
        ----------
        protocol
            The protocol's name.
        query_id
            (n,) names, unique in the protocol.
        image_id, xyxy, person_id, source_row
            (n,) images, (n, 4) boxes as in `boxes`, identities, and rows of the source file.
        **more
            None: any other column is refused.

        Raises
        ------
        CatalogError
            For any other column.

        Examples
        --------
        >>> rows = Rows("queries.csv")
        >>> rows.queries("mine", ["q1"], ["a"], [[1, 2, 11, 32]], ["7"], [1])
        >>> len(rows.tables().queries)
        1
        """
        self._check_columns("queries", more)
        boxes = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
        faults = box_faults(boxes)
        for i in np.flatnonzero(faults != "").tolist():
            detail = f"query {query_id[i]!r}: {box_text(boxes[i])}"
            self.reject(INVALID, f"query_{faults[i]}", detail, source_row[i], image_id[i])
        good = np.flatnonzero(faults == "").tolist()
        columns: dict[str, Column] = {"protocol": protocol, **_corners(boxes[good].astype(np.float32))}
        columns["source_file"] = self.source_file
        given = {"query_id": query_id, "image_id": image_id, "person_id": person_id, "source_row": source_row}
        for name, values in given.items():
            columns[name] = [values[i] for i in good]
        self._queries.append(RowBlock(len(good), columns))

    def gallery(
        self, protocol: str, query_id: Column, image_id: Column, is_positive: Column, **corners: Column
    ) -> None:
        """Gallery images of queries; x1, y1, x2, y2 where the protocol gives a box."""
        self._check_columns("gallery", corners)
        columns = {
            "protocol": protocol,
            "query_id": query_id,
            "image_id": image_id,
            "is_positive": is_positive,
        }
        self._gallery.append(RowBlock(len(image_id), {**columns, **corners}))

    def reject(
        self, severity: str, code: str, detail: str, source_row: int, image_id: str | None = None
    ) -> None:
        """Add a row that is not taken.

        Parameters
        ----------
        severity
            `EXCLUDED` for what the format itself does not call a person, `INVALID` for damage.
        code
            A short name of the reason, such as `row_unreadable`.
        detail
            The reason, for people.
        source_row
            The row of the source file, from 1; 0 for the whole file.
        image_id
            The image that it belongs to, if known.

        Examples
        --------
        >>> rows = Rows("labels.csv")
        >>> rows.reject("invalid", "row_unreadable", "not a number: 'x'", 3)
        >>> rows.count()
        1
        """
        last = self._rejects[-1] if self._rejects else None
        if not isinstance(last, _SingleRejects):
            last = _SingleRejects(self.source_file)
            self._rejects.append(last)
        last.add(severity, code, detail, source_row, image_id)

    def rejects(
        self,
        severity: Column,
        code: Column,
        detail: Column,
        source_row: Sequence[int] | np.ndarray,
        image_id: Column = None,
    ) -> None:
        """Many rows that were not taken: as `reject`, in columns."""
        columns = {"severity": severity, "code": code, "detail": detail, "image_id": image_id}
        place = {"source_file": self.source_file, "source_row": source_row}
        self._rejects.append(RowBlock(len(source_row), {**columns, **place}))

    def _check_columns(self, kind: str, given: Mapping[str, Column]) -> None:
        """Raise CatalogError for a column that the table does not have: it would be lost."""
        for name in given:
            if name in _MORE[kind]:
                continue
            known = (*_NAMED[kind], *_MORE[kind])
            meant = _MEANT.get(name.lower())
            hint = f"; did you mean {meant!r}?" if meant in known else did_you_mean(name, known)
            raise CatalogError(
                f"{self.source_file}: rows.{kind} has no column {name!r} but {', '.join(known)}{hint}"
            )

    def count(self) -> int:
        """Rows of any kind but queries added so far."""
        blocks = (*self._boxes, *self._gallery, *self._images, *self._rejects)
        return sum(block.length for block in blocks)

    def is_large(self) -> bool:
        """Whether these rows are better written at once than kept until more come."""
        return self.count() >= LARGE

    def gallery_count(self) -> int:
        """Gallery rows added so far."""
        return sum(block.length for block in self._gallery)

    def image_count(self) -> int:
        """Images added so far."""
        return sum(block.length for block in self._images)

    def tables(self) -> Tables:
        """The rows as Arrow tables, damaged boxes moved to the rejects."""
        return to_tables([self])


def to_tables(parts: Sequence[Rows]) -> Tables:
    """The rows of several source files as Arrow tables, damaged boxes moved to the rejects."""
    boxes, damaged = box_tables(_of_units(parts, "_boxes"))
    rejects = arrow_table(REJECTS, _of_units(parts, "_rejects"))
    return Tables(
        images=arrow_table(ADAPTER_IMAGES, _of_units(parts, "_images")),
        boxes=boxes,
        queries=arrow_table(QUERIES, _of_units(parts, "_queries")),
        gallery=arrow_table(GALLERY, _of_units(parts, "_gallery")),
        rejects=pa.concat_tables([rejects, damaged]) if len(damaged) else rejects,
    )


def _of_units(parts: Sequence[Rows], kind: str) -> list[RowBlock]:
    """The blocks of one kind of all parts, each with the unit that it was read from."""
    return [
        RowBlock(block.length, {**block.columns, "source_unit": rows.source_unit or rows.source_file})
        for rows in parts
        for block in getattr(rows, kind)
    ]


class _SingleRejects(RowBlock):
    """A block that grows by one row at a time."""

    def __init__(self, source_file: str) -> None:
        lists: dict[str, Column] = {
            name: [] for name in ("severity", "code", "detail", "source_row", "image_id")
        }
        super().__init__(0, {**lists, "source_file": source_file})

    def add(self, severity: str, code: str, detail: str, source_row: int, image_id: str | None) -> None:
        values = {"severity": severity, "code": code, "detail": detail}
        for name, value in {**values, "source_row": source_row, "image_id": image_id}.items():
            self.columns[name].append(value)
        self.length += 1


def xywh_corners(xywh: ArrayLike) -> np.ndarray:
    """Turn x, y, width, height into corners.

    Parameters
    ----------
    xywh
        (n, 4) boxes in pixels, of any numeric type.

    Returns
    -------
    numpy.ndarray
        (n, 4) x1, y1, x2, y2 as float64, so integers do not overflow.

    Examples
    --------
    >>> xywh_corners([[1, 2, 10, 30]]).tolist()
    [[1.0, 2.0, 11.0, 32.0]]
    """
    boxes = np.asarray(xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def visible_columns(xywh: np.ndarray, known: np.ndarray) -> dict[str, Column]:
    """Columns of `rows.boxes` for the visible parts of people, (n, 4) x, y, w, h; null where not `known`."""
    corners = xywh_corners(xywh).astype(np.float32)
    return {
        f"visible_{side}": [float(v) if k else None for v, k in zip(corners[:, at], known, strict=True)]
        for at, side in enumerate(COORDINATES)
    }


def _corners(xyxy: np.ndarray) -> dict[str, np.ndarray]:
    return {name: xyxy[:, i] for i, name in enumerate(COORDINATES)}
