"""COCO JSON (Lin et al. 2014), with the keys of identities and cameras named by the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.coco_annotations import AnnotationReader, Annotations, SeenIds
from data_catalog.adapters.coco_catalog import CATALOG, box_columns, image_columns
from data_catalog.adapters.coco_columns import Ids, as_text
from data_catalog.adapters.coco_images import read_images
from data_catalog.adapters.coco_layout import accents, find_coco, image_paths
from data_catalog.adapters.options import (
    PEOPLE,
    choice_option,
    folder_option,
    identity_option,
    names_option,
    plain,
)
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import image_files
from data_catalog.image_lookup import ImageLookup
from data_catalog.jsonstream import ArrayPart, top_level_arrays
from data_catalog.repeated_ids import with_row
from data_catalog.row_tables import Column
from data_catalog.rows import Rows, xywh_corners
from data_catalog.schema import EXCLUDED, INVALID, SCOPE_DATASET, SCOPE_SEQUENCE

SEQUENCE = "sequence_id"
EXAMPLES = 3


class Coco:
    """Boxes are x, y, w, h, 0-based; `iscrowd` and `ignore` make ignore regions; other categories are
    `excluded`. Numbers and ids may be text or floats.

    A box is named by its annotation's id, and by its row in the file if the id is not unique. Null, NaN,
    blank text and negative numbers are unknown people; 7 and 7.0 are the same identity; anything else (a
    list, true, 7.5) makes a reject. Of the published files of one image set, only instances are read. An
    image is named as in its file; if two splits have images of the same name, the split's folder comes first.
    """

    name = "coco"
    version = 4
    marks = ("annotations", "_annotations.coco.json", "json")
    options: Mapping[str, str] = {
        "annotations": "JSON file, a folder of them, or a pattern such as annotations/instances_*.json; by "
        "default every .json in the root or its folder annotations, or else in a folder per split; but "
        "captions and keypoints of images that instances annotate",
        "images": "folder of images (default: the one that holds most of a file's images)",
        "split": "name of the split; by default what the file's name or its folder says (valid is val), or "
        "else train",
        "categories": f"names of the categories that are people, in any case (default {PEOPLE})",
        "person_id": "key of an annotation's identity in the dataset, or a path of keys such as "
        "attributes.person_id; negative numbers mean unknown",
        "track_id": "key of an annotation's identity within its sequence, such as attributes.track_id",
        "sequence_id": f"key of an image's sequence (default {SEQUENCE}, with track_id)",
        "camera_id": "key of an image's camera number",
        "columns": f"{CATALOG}: take names, splits, identities and all other columns from the keys that "
        "`personsearch datasets export` wrote",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        _reads_catalog(options)
        identity_option(options)
        within = folder_option(options, "images", "") if "images" in options else None
        found = find_coco(root, options.get("annotations"), within, options.get("split"))
        folders = sorted({source.folder for source in found.sources})
        spelt = {folder: accents(found.images, folder) for folder in folders}
        units = tuple(
            Unit(each.name, each.split, parameters=(each.folder, each.prefix, spelt[each.folder]))
            for each in found.sources
        )
        images = {path for folder in folders for path in found.images.within(folder).paths}
        left = ", ".join(found.left)
        return Layout(
            units,
            images=tuple(sorted(images)),
            edition=f"instances, without {left}, which are of the same images" if left else None,
            notes=found.notes,
            other=tuple(escape(name) for name in found.left),
        )

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        reader = _CocoReader(root, unit, options)
        yield from reader.read()


class _CocoReader:
    """Reads one JSON file: images and categories first, in any order of the file."""

    def __init__(self, root: Path, unit: Unit, options: Options) -> None:
        self.root = root
        self.path = root / unit.source
        self.unit = unit
        self.options = options
        self.reads_catalog = _reads_catalog(options)
        self.folder, self.prefix, self.has_accents = unit.parameters
        self.people = names_option(options, "categories", PEOPLE)
        self.person_key = identity_option(options)[0]
        self.image_keys = {name: options.get(name) for name in ("sequence_id", "camera_id")}
        if "track_id" in options:
            self.image_keys["sequence_id"] = options.get("sequence_id", SEQUENCE)
        self.missing_of_images = {key for key in self.image_keys.values() if key}
        """Keys that options name and that no image carried so far."""
        self.category_names: dict[int, str] = {}
        self.image_ids, self.category_ids = Ids(), Ids()
        self.annotations = AnnotationReader(self.image_ids, self.category_ids, self.person_key)
        self._ids: list[np.ndarray] = []
        self._names: list[pa.Array] = []
        self._sequences: list[pa.Array] = []
        self._splits: list[pa.Array] = []
        self.images_read = 0
        self._sorted: np.ndarray | None = None
        self._seen = SeenIds()

    def read(self) -> Iterator[Rows]:
        head = frozenset({"images", "categories"})
        seen: set[str] = set()
        waiting = False
        for key, part in top_level_arrays(self.path, head | {"annotations"}):
            seen.add(key)
            if key == "annotations":
                waiting = waiting or not head <= seen
                if not waiting:
                    yield self._annotations(part)
            else:
                yield self._head(key, part)
        if waiting:
            self._index()
            for _, part in top_level_arrays(self.path, frozenset({"annotations"})):
                yield self._annotations(part)
        if "images" not in seen:
            raise CatalogError(f"{self.path}: not COCO JSON: it has no 'images'")
        self._check_image_keys()
        if self.annotations.count and self.annotations.key_is_missing:
            raise CatalogError(
                f"{self.path}: none of its {self.annotations.count:,} annotations has a {self.person_key!r}, "
                "which the options name as the key of identities: correct it, or ingest this file by itself, "
                "without it"
            )

    def _check_image_keys(self) -> None:
        """Raise CatalogError for a key of images that none of them carries."""
        for option, key in self.image_keys.items():
            if self.images_read and key in self.missing_of_images:
                other = ", or identities of the whole dataset by person_id" if option == "sequence_id" else ""
                raise CatalogError(
                    f"{self.path}: none of its {self.images_read:,} images has a {key!r}: "
                    f"name the key by the option {option}{other}"
                )

    def _head(self, key: str, part: ArrayPart) -> Rows:
        rows = Rows(self.unit.source)
        if key == "images":
            self._images(rows, part)
            self._sorted = None
            return rows
        for category in part.elements():
            try:
                number = self.category_ids.number(category["id"])
            except (TypeError, KeyError, ValueError):
                raise CatalogError(f"{self.path}: a category has no id: {str(category)[:80]}") from None
            name = as_text(category.get("name"))
            before = self.category_names.setdefault(number, name)
            if before != name:
                both = f"categories {before!r} and {name!r}"
                raise CatalogError(f"{self.path}: {both} have one id: {category['id']}")
        return rows

    def _index(self) -> None:
        """Prepare the lookup of images by their number in the file."""
        self._check_image_keys()
        ids = np.concatenate([np.zeros(0, np.int64), *self._ids])
        self.names, self.sequences, self.splits = (
            pa.concat_arrays([pa.array([], pa.string()), *parts])
            for parts in (self._names, self._sequences, self._splits)
        )
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]
        again = np.flatnonzero(self._sorted[1:] == self._sorted[:-1]) + 1
        if len(again):
            raise CatalogError(f"{self.path}: {self._ids_twice(again)}")

    def _ids_twice(self, again: np.ndarray) -> str:
        assert self._sorted is not None
        first = again[:EXAMPLES]
        names = [self.names[int(self._order[at + shift])].as_py() for at in first for shift in (-1, 0)]
        shown = [
            f"{number} ({names[2 * i]} and {names[2 * i + 1]})"
            for i, number in enumerate(self.image_ids.written(self._sorted[first]))
        ]
        more = ", ..." if len(again) > EXAMPLES else ""
        return f"{len(again):,} images have the id of an earlier image, such as {', '.join(shown)}{more}"

    def _images(self, rows: Rows, part: ArrayPart) -> None:
        found, unusable, count = read_images(part, self.images_read + 1, self.image_keys, self.image_ids)
        self.images_read += count
        self.missing_of_images -= found.carried
        for number, fault in unusable:
            rows.reject(INVALID, "image_unreadable", fault, number)
        names, sequences = found.names, found.sequences
        if self.prefix:
            names, sequences = (
                pc.binary_join_element_wise(self.prefix, each, "") for each in (names, sequences)
            )
        optional = {**found.optional, "sequence_id": sequences}
        splits: Column = self.unit.split
        if self.reads_catalog:
            lost = {number - self.images_read + count - 1 for number, _ in unusable}
            kept = pa.array([at for at in range(count) if at not in lost], pa.int64())
            columns = {name: each.take(kept) for name, each in image_columns(self.path, part).items()}
            names, splits = columns.pop("image_id"), columns.pop("split")
            optional |= columns
            self._splits.append(splits)
        self._ids.append(found.ids)
        self._names.append(names)
        self._sequences.append(optional["sequence_id"])
        rows.images(names, self._paths(found.names), splits, **optional)

    def _paths(self, names: pa.Array) -> pa.Array:
        paths = image_paths(names, self.unit.source, self.folder)
        if not self.has_accents or pc.all(pc.string_is_ascii(names)).as_py():
            return paths
        return pa.array([self._lookup.find(path) or path for path in paths.to_pylist()], pa.string())

    @cached_property
    def _lookup(self) -> ImageLookup:
        return ImageLookup(image_files(self.root, self.folder, recursive=True))

    def _annotations(self, part: ArrayPart) -> Rows:
        rows = Rows(self.unit.source)
        first_row = self.annotations.count + 1
        found, unusable = self.annotations.read(part)
        if unusable:
            numbers, reasons = zip(*unusable, strict=True)
            rows.rejects(INVALID, "row_unreadable", list(reasons), numbers)
        if self._sorted is None:
            self._index()
        self._add(rows, found, part, first_row)
        return rows

    def _add(self, rows: Rows, found: Annotations, part: ArrayPart, first_row: int) -> None:
        """Add boxes and rejects of a part, whose first row in the file is `first_row`."""
        assert self._sorted is not None
        place = np.minimum(np.searchsorted(self._sorted, found.images), max(len(self._sorted) - 1, 0))
        known = self._sorted[place] == found.images if len(self._sorted) else np.zeros(len(place), bool)
        people = [number for number, name in self.category_names.items() if plain(name) in self.people]
        person = np.isin(found.categories, people, kind="sort")
        self._reject(rows, found, known, person)
        misnamed = known & person & ~found.ignored & self._misnamed(found, place)
        if misnamed.any():
            which = np.flatnonzero(misnamed)
            rows.rejects(
                INVALID, "identity_unreadable", self._why_misnamed(found.take(which)), found.rows[which]
            )
        usable = np.flatnonzero(known & person & ~misnamed)
        taken = found.take(usable) if len(usable) < len(known) else found
        ordinal = self._order[place[usable]]
        names = self.names.take(pa.array(ordinal))
        splits: Column = self.unit.split
        if self.reads_catalog:
            splits = self.splits.take(pa.array(ordinal))
            at = pa.array(taken.rows - first_row)
            columns = {name: each.take(at) for name, each in box_columns(self.path, part).items()}
        else:
            columns = {
                "box_id": pc.binary_join_element_wise(names, self._unique_names(taken), "#"),
                "category_raw": self._category_raw(taken.categories),
                "ignore_reason": _ignore_reason(taken),
                **self._identities(taken, ordinal),
            }
        rows.boxes(names, xywh_corners(taken.boxes), splits, taken.rows, ignore=taken.ignored, **columns)

    def _unique_names(self, taken: Annotations) -> pa.Array:
        repeated = self._seen.repeated(taken.names)
        names = taken.names.cast(pa.string())
        if not repeated.any():
            return names
        return pc.if_else(pa.array(repeated), with_row(names, pa.array(taken.rows)), names)

    def _misnamed(self, found: Annotations, place: np.ndarray) -> np.ndarray:
        """(n,) bool: identities that are unusable, or valid only within a sequence that is unknown."""
        if "track_id" not in self.options or not len(self._order):
            return found.misnamed
        without = pc.is_null(self.sequences).to_numpy(zero_copy_only=False)
        return np.asarray(found.misnamed | (~found.anonymous & without[self._order[place]]))

    def _why_misnamed(self, found: Annotations) -> pa.Array:
        assert found.identity is not None
        why = pc.if_else(
            pa.array(found.misnamed), "is not an identity", "belongs to an image without a sequence"
        )
        value = pc.utf8_slice_codeunits(found.identity, 0, 40)
        return pc.binary_join_element_wise(f"{self.person_key}", value, why, " ")

    def _identities(self, taken: Annotations, ordinal: np.ndarray) -> dict[str, Any]:
        raw = taken.identity
        if raw is None:
            return {}
        unknown = pa.array(taken.anonymous | taken.ignored)
        anonymous = pa.scalar(None, pa.string())
        if "person_id" in self.options:
            ids = pc.if_else(unknown, anonymous, raw)
            return {"person_id": ids, "person_id_raw": raw, "person_scope": SCOPE_DATASET}
        sequences = self.sequences.take(pa.array(ordinal))
        ids = pc.if_else(unknown, anonymous, pc.binary_join_element_wise(sequences, raw, "/"))
        return {"person_id": ids, "person_id_raw": raw, "person_scope": SCOPE_SEQUENCE}

    def _reject(self, rows: Rows, found: Annotations, known: np.ndarray, person: np.ndarray) -> None:
        lost = np.flatnonzero(~known)
        if len(lost):
            numbers = pa.array(self.image_ids.written(found.images[lost]), pa.string())
            detail = pc.binary_join_element_wise("image_id", numbers, "is not among the images", " ")
            rows.rejects(INVALID, "image_unknown", detail, found.rows[lost])
        others = known & ~person
        if not others.any():
            return
        for number in np.unique(found.categories[others]).tolist():
            of_category = found.rows[others & (found.categories == number)]
            name = self.category_names.get(number)
            written = self.category_ids.written(np.array([number]))[0]
            if name is None:
                rows.rejects(INVALID, "category_unknown", f"category {written}", of_category)
            else:
                rows.rejects(EXCLUDED, "not_a_person", f"category {written}: {name}", of_category)

    def _category_raw(self, categories: np.ndarray) -> pa.Array:
        texts = self.category_ids.is_text(categories)
        return pa.array(
            categories.clip(-(1 << 31), (1 << 31) - 1), pa.int64(), mask=texts if texts.any() else None
        )


def _reads_catalog(options: Options) -> bool:
    """Whether the file's own keys of the catalog's columns are read.

    Raises:
        CatalogError: when other options name keys, too.
    """
    if "columns" not in options:
        return False
    choice_option(options, "columns", CATALOG)
    named = next(
        (name for name in ("person_id", "track_id", "sequence_id", "camera_id") if name in options), None
    )
    if named is not None:
        raise CatalogError(f"options columns={CATALOG} and {named}: give one of them")
    return True


def _ignore_reason(taken: Annotations) -> pa.Array | None:
    if not taken.ignored.any():
        return None
    marked = pc.if_else(pa.array(taken.ignore), "ignore", pa.scalar(None, pa.string()))
    return pc.if_else(pa.array(taken.crowd), "crowd", marked)
