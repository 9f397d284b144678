"""Rows checked against their images: which images can be used, their sizes, and which boxes lie in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.protocol import IGNORE, Options
from data_catalog.files import path_fault, suspicious
from data_catalog.images import Exif, ImageHeader, Unreadable, read_header
from data_catalog.row_tables import COORDINATES, box_rejects, with_column
from data_catalog.rows import Rows, Tables, to_tables
from data_catalog.schema import EXCLUDED, IMAGES, INVALID, REJECTS
from data_catalog.snapshot import Snapshot

LEFT_OUT, UNREADABLE = "left_out", "image_unreadable"
_REASON = ": "
"""Between an image's path and why it is not taken."""
OUTSIDE = "box_outside"
_SIZES = pa.schema([IMAGES.field(name) for name in ("image_id", "width", "height")])


@dataclass(frozen=True)
class _Fault:
    """Why an image is not taken."""

    severity: str
    code: str
    detail: str


class RowChecks:
    """Checks of the rows of one chunk of units, part by part: boxes come with their images or after them."""

    def __init__(self, root: Path, options: Options, *, read_images: bool) -> None:
        self._root = root
        self._read_images = read_images
        self._exif: Exif = "ignore" if options.get("exif") == IGNORE else "apply"
        self._leave_out = [part.strip() for part in options.get("leave_out", "").split(",") if part.strip()]
        self._dropped: dict[str, str] = {}
        """Severity of the reject of each image that is not taken, by its id."""
        self._sizes = _SIZES.empty_table()
        self._smallest = np.array([math.inf, math.inf])
        """The smallest width and the smallest height of these."""

    def tables(self, parts: Sequence[Rows]) -> Tables:
        """The parts as tables, without images that cannot be used and boxes that are not inside their image;
        these are among the rejects.
        """
        tables = to_tables(parts)
        sources = [rows for rows in parts for _ in range(rows.image_count())]
        images, faults = self._usable(tables.images)
        rejects = [tables.rejects]
        if faults:
            ids = tables.images["image_id"].to_pylist()
            self._dropped |= {ids[row]: fault.severity for row, fault in faults.items()}
            rejects.append(_image_rejects(ids, faults, sources))
        if len(images):
            self._remember_sizes(images)
        boxes, lost = self._without_dropped(tables.boxes)
        boxes, outside = self._inside(boxes)
        together = _in_order(pa.concat_tables([*rejects, lost, outside]), parts)
        return Tables(images, boxes, tables.queries, tables.gallery, together)

    def _remember_sizes(self, images: pa.Table) -> None:
        known = images.select(_SIZES.names).filter(pc.is_valid(images["width"]))
        if len(known):
            self._sizes = pa.concat_tables([self._sizes, known])
            sides = (pc.min(known[name]).as_py() for name in ("width", "height"))
            self._smallest = np.minimum(
                self._smallest, [math.inf if side is None else side for side in sides]
            )

    def _usable(self, images: pa.Table) -> tuple[pa.Table, dict[int, _Fault]]:
        """Images with what their files say of them, and of those that cannot be used, by row, why."""
        look_at_all = self._read_images or self._leave_out
        rows = range(len(images)) if look_at_all else np.flatnonzero(suspicious(images["rel_path"])).tolist()
        paths = images["rel_path"].take(pa.array(rows, pa.int64())).to_pylist()
        faults: dict[int, _Fault] = {}
        headers: list[ImageHeader | None] = [None] * len(images)
        for row, path in zip(rows, paths, strict=True):
            found = self._look(path)
            if isinstance(found, _Fault):
                faults[row] = found
            else:
                headers[row] = found
        if self._read_images and len(images):
            images = _as_decoded(images, headers, self._exif)
        if faults:
            images = images.filter(pa.array([row not in faults for row in range(len(images))]))
        return images, faults

    def _look(self, rel_path: str) -> ImageHeader | _Fault | None:
        fault = path_fault(rel_path)
        if fault is not None:
            return _Fault(INVALID, "image_path", f"{fault}: {rel_path[:80]!r}")
        if any(fnmatchcase(rel_path, pattern) for pattern in self._leave_out):
            return _Fault(EXCLUDED, LEFT_OUT, f"{rel_path}{_REASON}the option leave_out names it")
        if not self._read_images:
            return None
        try:
            return read_header(self._root / rel_path)
        except Unreadable as error:
            return _Fault(INVALID, UNREADABLE, f"{rel_path}{_REASON}{error}")

    def _without_dropped(self, boxes: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Boxes of images that are taken, and rejects of the others."""
        if not self._dropped or not len(boxes):
            return boxes, REJECTS.empty_table()
        at = pc.index_in(boxes["image_id"], value_set=pa.array(list(self._dropped), pa.string()))
        lost = pc.is_valid(at)
        severity = pa.array(list(self._dropped.values()), pa.string()).take(pc.drop_null(at))
        detail = "its image is among the rejects"
        return boxes.filter(pc.invert(lost)), box_rejects(
            boxes.filter(lost), severity, "image_rejected", detail
        )

    def _inside(self, boxes: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Boxes with an area inside their image, and rejects of the others; an unknown size excludes no box
        to the right or below."""
        x1, y1, x2, y2 = (boxes[name].to_numpy() for name in COORDINATES)
        # Nearly all boxes begin inside the smallest image, so that their own needs no look.
        beyond = (x2 <= 0) | (y2 <= 0) | (x1 >= self._smallest[0]) | (y1 >= self._smallest[1])
        asked = np.flatnonzero(beyond)
        if not len(asked):
            return boxes, REJECTS.empty_table()
        owner = boxes["image_id"].take(pa.array(asked)).combine_chunks().dictionary_encode()
        at = pc.index_in(owner.dictionary, value_set=self._sizes["image_id"]).take(owner.indices)
        width, height = (
            pc.fill_null(self._sizes[name].take(at), np.iinfo(np.int32).max).to_numpy()
            for name in ("width", "height")
        )
        outside = (x2[asked] <= 0) | (y2[asked] <= 0) | (x1[asked] >= width) | (y1[asked] >= height)
        bad = asked[outside]
        details = [
            f"x1 {x1[i]:g}, y1 {y1[i]:g}, x2 {x2[i]:g}, y2 {y2[i]:g} in an image of {w}x{h}"
            for i, w, h in zip(bad, width[outside], height[outside], strict=True)
        ]
        rejects = box_rejects(boxes.take(pa.array(bad)), INVALID, OUTSIDE, pa.array(details, pa.string()))
        kept = np.ones(len(boxes), bool)
        kept[bad] = False
        return boxes.filter(pa.array(kept)), rejects


def rejected_images(snapshot: Snapshot) -> set[str]:
    """Paths of the images that were not taken for what their files are."""
    return unreadable_images(snapshot) | _paths(snapshot, LEFT_OUT)


def unreadable_images(snapshot: Snapshot) -> set[str]:
    """Paths of the images that were not taken since they cannot be read; where an adapter has refused an
    image's row by that code, what it gives instead of a path is among them.
    """
    return _paths(snapshot, UNREADABLE)


def _paths(snapshot: Snapshot, code: str) -> set[str]:
    details = snapshot.table("rejects", ["detail"], pc.field("code") == code)["detail"].to_pylist()
    return {detail.partition(_REASON)[0] for detail in details}


def _as_decoded(images: pa.Table, headers: Sequence[ImageHeader | None], exif: Exif) -> pa.Table:
    """Images with the sizes of their files, what decoding does, and the stated size where it differs."""
    sizes = [None if header is None else header.size(exif) for header in headers]
    stated = list(zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True))
    differ = [
        None if size is None or None in given or given == size else given
        for size, given in zip(sizes, stated, strict=True)
    ]
    columns = {
        "width": [None if size is None else size[0] for size in sizes],
        "height": [None if size is None else size[1] for size in sizes],
        "decoding": [None if header is None else header.decoding(exif) for header in headers],
        "stated_width": [None if given is None else given[0] for given in differ],
        "stated_height": [None if given is None else given[1] for given in differ],
    }
    for name, values in columns.items():
        kind = images.schema.field(name).type
        plain = pa.string() if pa.types.is_dictionary(kind) else kind
        images = with_column(images, name, pa.array(values, plain))
    return images


def _image_rejects(ids: Sequence[str], faults: Mapping[int, _Fault], sources: Sequence[Rows]) -> pa.Table:
    rows = [
        {
            "severity": fault.severity,
            "code": fault.code,
            "image_id": ids[row],
            "source_unit": sources[row].source_unit,
            "source_file": sources[row].source_file,
            "source_row": 0,
            "detail": fault.detail,
        }
        for row, fault in faults.items()
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS)


def _in_order(rejects: pa.Table, parts: Sequence[Rows]) -> pa.Table:
    """Rejects by source file, as these were read, and by row: the same whatever the chunks."""
    if len(rejects) < 2:
        return rejects
    rejects = rejects.unify_dictionaries()
    files = list(dict.fromkeys(rows.source_file for rows in parts))
    file = pc.index_in(rejects["source_file"].cast(pa.string()), value_set=pa.array(files)).to_numpy()
    return rejects.take(pa.array(np.lexsort((rejects["source_row"].to_numpy(), file))))
