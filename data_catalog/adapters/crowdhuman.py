"""CrowdHuman (Shao et al. 2018): .odgt, one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.adapters.box_records import BoxRecord, add_boxes, corners_of
from data_catalog.adapters.coco_columns import flag
from data_catalog.adapters.options import folder_option
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.files import image_files, open_file, path_fault, walk
from data_catalog.ids import four_numbers
from data_catalog.image_lookup import ImageLookup, SplitImages
from data_catalog.jsonstream import parse_json
from data_catalog.rows import Rows, visible_columns
from data_catalog.schema import INVALID
from data_catalog.split_names import splits_of

FILES = {"annotation_train.odgt": "train", "annotation_val.odgt": "val"}
FOLDER = "Images"
LAYOUTS = (
    "annotation_train.odgt and annotation_val.odgt in the root",
    "other .odgt files, in the root or in its folders",
)
LARGEST_NUMBER = 1e30
LONGEST_LINE = 1 << 26
"""Bytes."""


class CrowdHuman:
    """The full box (fbox) is the box, the visible one (vbox) is kept beside it; both x, y, w, h, 0-based.

    `tag` "mask" and `extra.ignore` make ignore regions.
    """

    name = "crowdhuman"
    version = 2
    marks = ("annotation_train.odgt", "annotation_val.odgt", "odgt")
    options: Mapping[str, str] = {
        "images": f"folder of images (default {FOLDER}; images that are not in it are looked for by name)"
    }

    def discover(self, root: Path, options: Options) -> Layout:
        found = _annotation_files(root)
        folder = folder_option(options, "images", FOLDER)
        images = _images(root, options)
        units = tuple(
            Unit(name, split, parameters=(folder, SplitImages(images, folder, split).elsewhere()))
            for name, split in found.items()
        )
        return Layout(units, images=images.paths)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        images = SplitImages(_images(root, options), unit.parameters[0], unit.split)
        reader = _OdgtReader(unit.split, images)
        rows = Rows(unit.source)
        with open_file(root / unit.source) as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                if line.strip(b"\xef\xbb\xbf \t\r\n"):
                    reader.read(rows, line.removeprefix(b"\xef\xbb\xbf"), number)
                if rows.is_large():
                    yield rows
                    rows = Rows(unit.source)
        yield rows


def _annotation_files(root: Path) -> dict[str, str]:
    """Files and their splits: those of the published names, or else all .odgt in the root or its folders."""
    files = walk(root)
    published = {name: split for name, split in FILES.items() if (root / name).is_file()}
    if published:
        return published
    named = [path for path in files if path.lower().endswith(".odgt") and path.count("/") <= 1]
    if named:
        return dict(zip(named, splits_of(named), strict=True))
    deeper = [path for path in files if path.lower().endswith(".odgt")]
    nearest = f"{deeper[0]}; give its folder as the root" if deeper else what_is_there(files)
    raise refusal(root, "CrowdHuman dataset", LAYOUTS, nearest)


def _images(root: Path, options: Options) -> ImageLookup:
    """The images that may be meant: those of the folder, or else all."""
    folder = folder_option(options, "images", FOLDER)
    found = image_files(root, folder, recursive=True)
    return ImageLookup(found or image_files(root, "", recursive=True))


class _OdgtReader:
    """Reads the lines of one file."""

    def __init__(self, split: str, images: SplitImages) -> None:
        self.split = split
        self.images = images
        self.names: set[str] = set()

    def read(self, rows: Rows, line: bytes, number: int) -> None:
        """Add what a line says to the rows."""
        try:
            record = parse_json(line)
        except ValueError as error:
            rows.reject(INVALID, "row_unreadable", f"not JSON: {str(error)[:80]}", number)
            return
        name = record.get("ID") if isinstance(record, dict) else None
        name = str(name) if type(name) is int else name
        boxes = record.get("gtboxes") if isinstance(record, dict) else None
        if not isinstance(name, str) or not isinstance(boxes, list) or path_fault(name) or "/" in name:
            rows.reject(INVALID, "row_unreadable", "it has no usable ID or no gtboxes", number)
            return
        if name in self.names:
            rows.reject(INVALID, "image_twice", f"{name} already has a line", number, name)
            return
        self.names.add(name)
        rows.images([name], self._path(name), self.split)
        taken: list[BoxRecord] = []
        visible: list[list[float]] = []
        for index, box in enumerate(boxes, start=1):
            full = _four_numbers(box.get("fbox")) if isinstance(box, dict) else None
            if full is None:
                detail = f"box {index}: it has no fbox of four numbers"
                rows.reject(INVALID, "box_unreadable", detail, number, name)
                continue
            tag = str(box.get("tag"))
            reason, box_id = _reason(tag, box.get("extra")), f"{name}#{index}"
            taken.append(BoxRecord(name, self.split, corners_of(full), number, tag, reason, box_id=box_id))
            visible.append(_four_numbers(box.get("vbox")) or [np.nan] * 4)
        if taken:
            seen = np.array(visible)
            add_boxes(rows, taken, **visible_columns(seen, ~np.isnan(seen).any(1)))

    def _path(self, name: str) -> str:
        """The image's file: named by its ID with any suffix, in the folder or else anywhere."""
        found = self.images.find(f"{name}.jpg")
        if found is not None:
            return found
        same = self.images.called(name)
        return same[0] if len(same) == 1 else self.images.usual(f"{name}.jpg")


def _reason(tag: str, extra: Any) -> str | None:
    """Why a box is an ignore region; None for a person."""
    if tag != "person":
        return "mask" if tag == "mask" else "ignore"
    return "ignore" if isinstance(extra, dict) and flag(extra.get("ignore")) else None


def _four_numbers(value: Any) -> list[float] | None:
    """Four numbers, or their texts; None for anything else."""
    try:
        found = four_numbers(value, "a box")
    except ValueError:
        return None
    return found if all(abs(each) < LARGEST_NUMBER for each in found) else None
