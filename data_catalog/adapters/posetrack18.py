"""PoseTrack18 (Andriluka et al. 2018) and PoseTrack21 (Doering et al. 2022): one JSON file per sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from data_catalog.adapters.box_records import BoxRecord, add_boxes, corners_of
from data_catalog.adapters.options import folder_option, is_person
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.errors import CatalogError
from data_catalog.files import (
    NameLookup,
    files_with_suffix,
    folders,
    frame_number,
    image_files,
    path_fault,
    plain_name,
    read_bytes,
    usable,
    walk,
)
from data_catalog.ids import four_numbers, identity, number, side
from data_catalog.jsonstream import parse_json
from data_catalog.rows import Rows
from data_catalog.schema import EXCLUDED, INVALID, SCOPE_DATASET, SCOPE_SEQUENCE
from data_catalog.split_names import split_of_path

FOLDERS = ("annotations", "posetrack_data")
"""Of PoseTrack18 and PoseTrack21."""
LAYOUTS = (
    "annotations/{train,val}/SEQUENCE.json with images/{train,val}/SEQUENCE/*.jpg (PoseTrack18)",
    "posetrack_data/{train,val}/SEQUENCE.json with the same images (PoseTrack21)",
)
LARGEST_FILE = 1 << 28
"""Bytes; a sequence's file has a few million."""


class PoseTrack18:
    """`bbox` of a person is x, y, w, h, 0-based; `bbox_head` is not read. `track_id` names a person within
    the sequence, which is the folder of its images; with `person_id` the identity is the dataset's.

    Polygons of `ignore_regions_x`, `ignore_regions_y` make ignore regions of their extent. Unlabelled
    frames are not read. A person without `bbox` is a reject.
    """

    name = "posetrack18"
    version = 1
    marks = ("posetrack_data", "annotations", "json")
    options: Mapping[str, str] = {
        "annotations": "folder of the JSON files (default annotations, or else posetrack_data)",
        "images": "folder that the names of images start from (default: the root)",
        "person_id": "key of an annotation's identity in the dataset, as person_id in PoseTrack21; by "
        "default track_id is read, an identity within its sequence",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        given = [folder_option(options, "annotations", "")] if "annotations" in options else FOLDERS
        images = folder_option(options, "images", "")
        for folder in given:
            sources = usable(files_with_suffix(root, folder, ".json", recursive=True))
            if sources:
                break
        else:
            raise refusal(root, "PoseTrack18 dataset", LAYOUTS, _nearest(root))
        _check_first(root, sources)
        units = [
            _unit(root, images, path, split_of_path(path.removeprefix(f"{folder}/"))) for path in sources
        ]
        loose = {
            path for unit in units if not unit.images for path in image_files(root, images, recursive=True)
        }
        other = ("posetrack_mot/*", "posetrack_person_search/*", *_unlabelled(root, units))
        return Layout(tuple(units), images=tuple(sorted(loose)), other=other, notes=_notes(root))

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        _Sequence(rows, unit, options).read(_load(root / unit.source))
        yield rows


def _nearest(root: Path) -> str:
    files = walk(root)
    for path in files:
        for folder in FOLDERS:
            before, found, _ = path.partition(f"/{folder}/")
            if found and path.endswith(".json"):
                return f"{path}; give {before} as the root"
    return what_is_there(files)


def _check_first(root: Path, sources: Sequence[str]) -> None:
    """Raise CatalogError when the first file that can be read is another dataset's JSON."""
    value = _load(root / sources[0])
    images = value.get("images")
    if not isinstance(images, list):
        raise refusal(root, "PoseTrack18 dataset", LAYOUTS, f"{sources[0]}, which has no list 'images'")
    keys = {key for each in images[:1] if isinstance(each, dict) for key in each}
    if images and not keys & {"vid_id", "frame_id", "is_labeled", "nframes", "ignore_regions_x"}:
        raise refusal(
            root, "PoseTrack18 dataset", LAYOUTS, f"{sources[0]}, whose images have no vid_id or frame_id: "
            "it looks like plain COCO (adapter coco)"
        )  # fmt: skip


def _unlabelled(root: Path, units: Sequence[Unit]) -> Iterator[str]:
    """Patterns of the frames of the units' sequences, few where all sequences of a split have annotations:
    unlabelled frames belong to the format.
    """
    sequences: dict[str, set[str]] = {}
    for unit in units:
        if unit.images:
            folder = PurePosixPath(unit.images[0]).parent
            sequences.setdefault(str(folder.parent), set()).add(folder.name)
    for split, names in sequences.items():
        if names >= set(folders(root, split)):
            yield f"{escape(split)}/*"
        else:
            yield from (f"{escape(f'{split}/{name}')}/*" for name in sorted(names))


def _notes(root: Path) -> tuple[str, ...]:
    if not (root / "posetrack_person_search").is_dir():
        return ()
    return ("posetrack_person_search/*.json is COCO JSON with person_id: the adapter coco reads it",)


def _unit(root: Path, images: str, source: str, split: str) -> Unit:
    """A sequence's unit; its images lie in the folder of its name as a rule."""
    inner = f"images/{split}/{PurePosixPath(source).stem}"
    return Unit(source, split, images=image_files(root, f"{images}/{inner}".lstrip("/")))


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CatalogError(f"{path}: more than {LARGEST_FILE:,} bytes: not a PoseTrack sequence")
        value = parse_json(read_bytes(path))
    except ValueError as error:
        raise CatalogError(f"{path}: not readable as JSON: {str(error)[:120]}") from error
    if not isinstance(value, dict):
        raise CatalogError(f"{path}: not a PoseTrack file: it is not a JSON object")
    return value


@dataclass(frozen=True)
class _Image:
    name: str
    sequence: str


class _Sequence:
    """Reads one file: its labelled images, then their people."""

    def __init__(self, rows: Rows, unit: Unit, options: Options) -> None:
        self.rows = rows
        self.unit = unit
        self.prefix = folder_option(options, "images", "")
        self.key = options.get("person_id") or "track_id"
        self.scope = SCOPE_DATASET if options.get("person_id") else SCOPE_SEQUENCE
        self.lookup = NameLookup(unit.images) if unit.images else None
        self.images: dict[str, _Image] = {}
        self.boxes: list[BoxRecord] = []

    def read(self, value: Mapping[str, Any]) -> None:
        images = value.get("images")
        if not isinstance(images, list):
            raise CatalogError(f"{self.unit.source}: not a PoseTrack file: it has no list 'images'")
        annotations = value.get("annotations")
        if not isinstance(annotations, list) or not annotations:
            detail = f"none of its {len(images)} frames has an annotation: they do not count as empty"
            self.rows.reject(EXCLUDED, "not_labelled", detail, 0)
            return
        with_people = {_key(each.get("image_id")) for each in annotations if isinstance(each, dict)}
        unlabelled = {
            _key(each.get("id")) for each in images if isinstance(each, dict) and not _is_labelled(each)
        } - with_people
        for row, each in enumerate(images, start=1):
            self._image(each, row, unlabelled)
        people = _people(value.get("categories"))
        for row, each in enumerate(annotations, start=1):
            self._annotation(each, row, people)
        add_boxes(self.rows, self.boxes, person_scope=self.scope)

    def _image(self, value: Any, row: int, unlabelled: set[str | None]) -> None:
        key = _key(value.get("id")) if isinstance(value, dict) else None
        name = value.get("file_name") if isinstance(value, dict) else None
        if key is None or not isinstance(name, str) or path_fault(plain_name(name)) or key in self.images:
            self.rows.reject(INVALID, "image_unreadable", f"image {row} has no usable id or file_name", row)
            return
        if key in unlabelled:
            return
        path = plain_name(name)
        image_id = path.removeprefix("images/")
        stated = f"{self.prefix}/{path}".lstrip("/")
        file = stated if self.lookup is None else self.lookup.find(stated)
        if file is None:
            detail = f"image {row}: {path[:80]!r} is not there"
            self.rows.reject(INVALID, "image_missing", detail, row, image_id)
            return
        sequence = PurePosixPath(image_id).parent.name or str(value.get("vid_id", "."))
        self.images[key] = _Image(image_id, sequence)
        self.rows.images(
            [image_id],
            [file],
            self.unit.split,
            width=side(value.get("width")),
            height=side(value.get("height")),
            sequence_id=sequence,
            frame_index=frame_number(path),
        )
        self._ignore_regions(value, image_id, row)

    def _ignore_regions(self, value: Mapping[str, Any], image_id: str, row: int) -> None:
        across, down = (_polygons(value.get(f"ignore_regions_{axis}")) for axis in "xy")
        if across is None or down is None or [len(p) for p in across] != [len(p) for p in down]:
            detail = f"image {row}: ignore_regions_x and ignore_regions_y do not fit each other"
            self.rows.reject(INVALID, "region_unreadable", detail, row, image_id)
            return
        for count, (xs, ys) in enumerate(zip(across, down, strict=True), start=1):
            if xs:
                low_x, low_y = min(xs), min(ys)
                box = [low_x, low_y, max(xs) - low_x, max(ys) - low_y]
                place, box_id = (image_id, self.unit.split, corners_of(box)), f"{image_id}#ignore{count}"
                self.boxes.append(BoxRecord(*place, row, reason="ignore_region", box_id=box_id))

    def _annotation(self, value: Any, row: int, people: frozenset[str]) -> None:
        image = self.images.get(_key(value.get("image_id")) or "") if isinstance(value, dict) else None
        if image is None:
            self.rows.reject(
                INVALID, "image_unknown", f"annotation {row} belongs to no image in the file", row
            )
            return
        if people and _key(value.get("category_id", 1)) not in people:
            detail = f"category {str(value.get('category_id'))[:40]}"
            self.rows.reject(EXCLUDED, "not_a_person", detail, row, image.name)
            return
        try:
            box = _four_numbers(value.get("bbox"))
            raw = value.get(self.key)
            person = identity(raw)
        except ValueError as error:
            self.rows.reject(INVALID, "row_unreadable", f"annotation {row}: {error}", row, image.name)
            return
        if person is not None and self.scope == SCOPE_SEQUENCE:
            person = f"{image.sequence}/{person}"
        shown = None if raw is None else str(raw)[:80].encode("utf-8", "replace").decode()
        place = (image.name, self.unit.split, corners_of(box))
        self.boxes.append(BoxRecord(*place, row, person=person, raw=shown))


def _key(value: Any) -> str | None:
    """An id of an image or a category, however it is written; None where it is unusable."""
    try:
        return identity(value)
    except ValueError:
        return None


def _is_labelled(image: Mapping[str, Any]) -> bool:
    """Whether people were looked for in a frame; files without those keys hold labelled frames only."""
    flags = [image[key] for key in ("is_labeled", "has_labeled_person") if key in image]
    return not flags or any(flag in (True, 1, "true", "True") for flag in flags)


def _people(categories: Any) -> frozenset[str]:
    """Ids of the categories that are people; empty where the file names none."""
    found = [each for each in categories if isinstance(each, dict)] if isinstance(categories, list) else []
    ids = (_key(each.get("id")) for each in found if is_person(str(each.get("name", ""))))
    return frozenset(each for each in ids if each is not None)


def _four_numbers(value: Any) -> list[float]:
    if value is None or value == []:
        raise ValueError("a person without bbox")
    return four_numbers(value, "bbox")


def _polygons(value: Any) -> list[list[float]] | None:
    """Coordinates along one axis of each polygon; one polygon may stand without a list around it. None when
    they are damaged.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        return None
    lists = value if all(isinstance(each, list) for each in value) else [value]
    try:
        return [[number(each) for each in polygon] for polygon in lists]
    except ValueError:
        return None
