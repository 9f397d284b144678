"""COCO JSON (Lin et al. 2014), with the keys of identities and cameras named by the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.coco_annotations import Annotations, SeenIds, as_text, carries, read_annotations
from data_catalog.coco_images import read_images
from data_catalog.errors import CatalogError
from data_catalog.files import image_files, path_fault
from data_catalog.jsonstream import Part, top_level_arrays
from data_catalog.rows import Rows, xywh_corners
from data_catalog.schema import EXCLUDED, INVALID, SCOPE_DATASET, SCOPE_SEQUENCE

PEOPLE = "person,pedestrian,people"
SEQUENCE = "sequence_id"
LESS = ("/person_keypoints_", "/captions_")
"""How published files are named that annotate the images of an `instances_` again."""


class Coco:
    """Boxes are x, y, w, h, 0-based; `iscrowd` makes an ignore region; other categories are `excluded`.

    A box is named by its annotation's id; where an id is there already, by its row in the file, too. Null,
    NaN, blank text and negative numbers are nobody known; 7 and 7.0 are one identity; what cannot be one (a
    list, true, 7.5) makes a reject. Of the published files of one image set, instances alone are read.
    """

    name = "coco"
    version = 3
    options: Mapping[str, str] = {
        "annotations": "JSON file, or a pattern such as annotations/instances_*.json; by default every .json "
        "in the root or its folder annotations, but captions and keypoints of images that instances show",
        "images": "folder of images; by default images, or else the root; in it, that of the end of the "
        "file's name (val2017 for instances_val2017.json) where there is one",
        "split": "name of the split; by default train, val or test as the file's name says, else train",
        "categories": f"names of the categories that are people, in any case (default {PEOPLE})",
        "person_id": "key of an annotation's identity in the dataset; negative numbers mean unknown",
        "track_id": "key of an annotation's identity within its sequence",
        "sequence_id": f"key of an image's sequence (default {SEQUENCE}, with track_id)",
        "camera_id": "key of an image's camera number",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        if not root.is_dir():
            raise CatalogError(f"{root}: no such folder")
        if options.get("person_id") and options.get("track_id"):
            raise CatalogError("options person_id and track_id: give one of them")
        sources, left = _sources(root, options)
        units = [
            Unit(
                source,
                options.get("split") or _split_of(source),
                parameters=(_folder(root, source, options),),
            )
            for source in sources
        ]
        folders = sorted({unit.parameters[0] for unit in units})
        images = {name for folder in folders for name in image_files(root, folder, recursive=True)}
        edition = f"instances, without {', '.join(left)}, which are of the same images" if left else None
        return Layout(tuple(units), images=tuple(sorted(images)), edition=edition)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        reader = _CocoReader(root, unit, options)
        yield from reader.read()


def _sources(root: Path, options: Options) -> tuple[list[str], list[str]]:
    """Annotation files to read, and those that are left out, since others say more about their images."""
    given = options.get("annotations")
    try:
        names = [given] if given and _is_inside(root, given) else _matching(root, given)
    except ValueError as error:
        raise CatalogError(f"option annotations={given!r}: no pattern of files: {error}") from error
    if not names:
        what = (
            "no .json in it or in its folder annotations" if given is None else f"no annotation file {given}"
        )
        raise CatalogError(f"{root} is no COCO dataset: {what}")
    if given is not None:
        return names, []
    paths = {f"/{name}": name for name in names}
    shown = {path.replace("/instances_", "/") for path in paths if "/instances_" in path}
    left = [
        name
        for path, name in paths.items()
        for kind in LESS
        if kind in path and path.replace(kind, "/") in shown
    ]
    return [name for name in names if name not in left], left


def _is_inside(root: Path, name: str) -> bool:
    return path_fault(name) is None and (root / name).is_file()


def _matching(root: Path, pattern: str | None) -> list[str]:
    patterns = ("*.json", "annotations/*.json") if pattern is None else (pattern,)
    sound = [each for each in patterns if path_fault(each) is None]
    found = {
        path.relative_to(root).as_posix() for each in sound for path in root.glob(each) if path.is_file()
    }
    return sorted(found)


def _folder(root: Path, source: str, options: Options) -> str:
    """The folder of a file's images, relative to the root."""
    folder = options.get("images", "images" if (root / "images").is_dir() else "")
    if folder and path_fault(folder):
        raise CatalogError(f"option images={folder!r}: {path_fault(folder)}")
    inner = f"{folder}/{_image_set(source)}".removeprefix("/")
    return inner if path_fault(inner) is None and (root / inner).is_dir() else folder


def _image_set(source: str) -> str:
    """`val2017` of `annotations/instances_val2017.json`."""
    return Path(source).stem.rpartition("_")[2]


def _split_of(source: str) -> str:
    stem = Path(source).stem.lower()
    return next((split for split in ("train", "val", "test") if split in stem), "train")


class _CocoReader:
    """Reads one JSON file: images and categories first, whatever their order in the file."""

    def __init__(self, root: Path, unit: Unit, options: Options) -> None:
        self.path = root / unit.source
        self.unit = unit
        self.options = options
        self.folder = unit.parameters[0]
        self.people = {_plain(name) for name in options.get("categories", PEOPLE).split(",")}
        self.person_key = options.get("person_id") or options.get("track_id")
        self.image_keys = {name: options.get(name) for name in ("sequence_id", "camera_id")}
        if "track_id" in options:
            self.image_keys["sequence_id"] = options.get("sequence_id", SEQUENCE)
        self.key_is_missing = self.person_key is not None
        self.missing_of_images = {key for key in self.image_keys.values() if key}
        """Keys that options name and that no image carried so far."""
        self.category_names: dict[int, str] = {}
        self._ids: list[np.ndarray] = []
        self._names: list[pa.Array] = []
        self._sequences: list[pa.Array] = []
        self.images_read = 0
        self.annotations_read = 0
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
            raise CatalogError(f"{self.path}: no COCO JSON: it has no 'images'")
        self._check_image_keys()
        if self.annotations_read and self.key_is_missing:
            raise CatalogError(
                f"{self.path}: none of its {self.annotations_read:,} annotations has a {self.person_key!r}, "
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

    def _head(self, key: str, part: Part) -> Rows:
        rows = Rows(self.unit.source)
        if key == "images":
            self._images(rows, part)
            self._sorted = None
            return rows
        for category in part.elements():
            if not isinstance(category, dict) or type(category.get("id")) is not int:
                raise CatalogError(f"{self.path}: a category has no id")
            self.category_names[category["id"]] = as_text(category.get("name"))
        return rows

    def _index(self) -> None:
        """Prepare the lookup of images by their number in the file."""
        self._check_image_keys()
        ids = np.concatenate([np.zeros(0, np.int64), *self._ids])
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]
        if len(ids) > 1 and (self._sorted[1:] == self._sorted[:-1]).any():
            twice = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]][0]
            raise CatalogError(f"{self.path}: image id {twice} is there twice")
        self.names = pa.concat_arrays([pa.array([], pa.string()), *self._names])
        self.sequences = pa.concat_arrays([pa.array([], pa.string()), *self._sequences])

    def _images(self, rows: Rows, part: Part) -> None:
        found, unusable, count = read_images(part, self.images_read + 1, self.image_keys)
        self.images_read += count
        self.missing_of_images -= found.carried
        for number, fault in unusable:
            rows.reject(INVALID, "image_unreadable", fault, number)
        self._ids.append(found.ids)
        self._names.append(found.names)
        self._sequences.append(found.sequences)
        last = f"{_image_set(self.unit.source)}/"
        whole = f"{self.folder}/" if self.folder else ""
        outer = whole[: -len(last)] if f"/{whole}".endswith(f"/{last}") else whole
        says_last = pc.starts_with(found.names, last)  # a name may say the last folder itself
        paths = pc.binary_join_element_wise(pc.if_else(says_last, outer, whole), found.names, "")
        rows.images(found.names, paths, self.unit.split, **found.optional)

    def _annotations(self, part: Part) -> Rows:
        rows = Rows(self.unit.source)
        key = self.person_key
        found, unusable, count = read_annotations(part, self.annotations_read + 1, key)
        self.annotations_read += count
        if self.key_is_missing and key is not None:
            self.key_is_missing = not carries(part, key)
        if unusable:
            numbers, reasons = zip(*unusable, strict=True)
            rows.rejects(INVALID, "row_unreadable", list(reasons), numbers)
        if self._sorted is None:
            self._index()
        self._add(rows, found)
        return rows

    def _add(self, rows: Rows, found: Annotations) -> None:
        assert self._sorted is not None
        place = np.minimum(np.searchsorted(self._sorted, found.images), max(len(self._sorted) - 1, 0))
        known = self._sorted[place] == found.images if len(self._sorted) else np.zeros(len(place), bool)
        people = [number for number, name in self.category_names.items() if _plain(name) in self.people]
        person = np.isin(found.categories, people, kind="sort")
        self._reject(rows, found, known, person)
        misnamed = known & person & ~found.crowd & self._misnamed(found, place)
        if misnamed.any():
            which = np.flatnonzero(misnamed)
            rows.rejects(
                INVALID, "identity_unreadable", self._why_misnamed(found.take(which)), found.rows[which]
            )
        usable = np.flatnonzero(known & person & ~misnamed)
        taken = found.take(usable) if len(usable) < len(known) else found
        ordinal = self._order[place[usable]]
        names = self.names.take(pa.array(ordinal))
        rows.boxes(
            names,
            xywh_corners(taken.boxes),
            self.unit.split,
            taken.rows,
            box_id=pc.binary_join_element_wise(names, self._unique_names(taken), "#"),
            category_raw=taken.categories.clip(-(1 << 31), (1 << 31) - 1),
            ignore=taken.crowd,
            ignore_reason=pc.if_else(pa.array(taken.crowd), "crowd", None) if taken.crowd.any() else None,
            **self._identities(taken, ordinal),
        )

    def _unique_names(self, taken: Annotations) -> pa.Array:
        repeated = self._seen.repeated(taken.names)
        names = taken.names.cast(pa.string())
        if not repeated.any():
            return names
        with_row = pc.binary_join_element_wise(names, pa.array(taken.rows).cast(pa.string()), "@")
        return pc.if_else(pa.array(repeated), with_row, names)

    def _misnamed(self, found: Annotations, place: np.ndarray) -> np.ndarray:
        """(n,) bool: identities that are none, or that hold within a sequence that is not known."""
        if "track_id" not in self.options or not len(self._order):
            return found.misnamed
        without = pc.is_null(self.sequences).to_numpy(zero_copy_only=False)
        return found.misnamed | (~found.nobody & without[self._order[place]])

    def _why_misnamed(self, found: Annotations) -> pa.Array:
        assert found.identity is not None
        why = pc.if_else(pa.array(found.misnamed), "is no identity", "is of an image without a sequence")
        value = pc.utf8_slice_codeunits(found.identity, 0, 40)
        return pc.binary_join_element_wise(f"{self.person_key}", value, why, " ")

    def _identities(self, taken: Annotations, ordinal: np.ndarray) -> dict[str, Any]:
        raw = taken.identity
        if raw is None:
            return {}
        unknown = pa.array(taken.nobody | taken.crowd)
        nobody = pa.scalar(None, pa.string())
        if "person_id" in self.options:
            ids = pc.if_else(unknown, nobody, raw)
            return {"person_id": ids, "person_id_raw": raw, "person_scope": SCOPE_DATASET}
        sequences = self.sequences.take(pa.array(ordinal))
        ids = pc.if_else(unknown, nobody, pc.binary_join_element_wise(sequences, raw, "/"))
        return {"person_id": ids, "person_id_raw": raw, "person_scope": SCOPE_SEQUENCE}

    def _reject(self, rows: Rows, found: Annotations, known: np.ndarray, person: np.ndarray) -> None:
        lost = np.flatnonzero(~known)
        if len(lost):
            numbers = pa.array(found.images[lost]).cast(pa.string())
            detail = pc.binary_join_element_wise("image_id", numbers, "is not among the images", " ")
            rows.rejects(INVALID, "image_unknown", detail, found.rows[lost])
        others = known & ~person
        if not others.any():
            return
        for number in np.unique(found.categories[others]).tolist():
            of_category = found.rows[others & (found.categories == number)]
            name = self.category_names.get(number)
            if name is None:
                rows.rejects(INVALID, "category_unknown", f"category {number}", of_category)
            else:
                rows.rejects(EXCLUDED, "not_a_person", f"category {number}: {name}", of_category)


def _plain(name: str) -> str:
    """A category's name as it is compared."""
    return name.strip().casefold()
