"""CrowdHuman (Shao et al. 2018): .odgt, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.files import image_files, path_fault
from data_catalog.jsonstream import parse_json
from data_catalog.rows import Rows, xywh_corners
from data_catalog.schema import INVALID

FILES = {"train": "annotation_train.odgt", "val": "annotation_val.odgt"}
LONGEST_LINE = 1 << 26
"""Bytes."""


class CrowdHuman:
    """The full box (fbox) is the box, the visible one (vbox) is kept beside it; both x, y, w, h, 0-based.

    `tag` "mask" and `extra.ignore` make ignore regions.
    """

    name = "crowdhuman"
    version = 1
    options: Mapping[str, str] = {"images": "folder of images (default Images)"}

    def discover(self, root: Path, options: Options) -> Layout:
        if not root.is_dir():
            raise CatalogError(f"{root}: no such folder")
        found = {split: name for split, name in FILES.items() if (root / name).is_file()}
        if not found:
            raise CatalogError(f"{root} is no CrowdHuman dataset: {' or '.join(FILES.values())} not found")
        units = tuple(Unit(name, split) for split, name in found.items())
        return Layout(units, images=image_files(root, _image_folder(options)))

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        folder = _image_folder(options)
        rows = Rows(unit.source)
        try:
            with (root / unit.source).open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                    if line.strip(b"\xef\xbb\xbf \t\r\n"):
                        _read_line(rows, line.removeprefix(b"\xef\xbb\xbf"), number, unit.split, folder)
                    if rows.is_large():
                        yield rows
                        rows = Rows(unit.source)
        except OSError as error:
            raise CatalogError(f"{root / unit.source}: cannot be read: {error.strerror}") from error
        yield rows


def _image_folder(options: Options) -> str:
    folder = options.get("images", "Images")
    if fault := path_fault(folder):
        raise CatalogError(f"option images={folder!r}: {fault}")
    return folder


def _read_line(rows: Rows, line: bytes, number: int, split: str, folder: str) -> None:
    try:
        record = parse_json(line)
    except ValueError as error:
        rows.reject(INVALID, "row_unreadable", f"no JSON: {str(error)[:80]}", number)
        return
    name = record.get("ID") if isinstance(record, dict) else None
    boxes = record.get("gtboxes") if isinstance(record, dict) else None
    if not isinstance(name, str) or not isinstance(boxes, list) or path_fault(name) or "/" in name:
        rows.reject(INVALID, "row_unreadable", "it has no usable ID or no gtboxes", number)
        return
    rows.images([name], f"{folder}/{name}.jpg", split)
    taken: list[tuple[int, dict[str, Any]]] = []
    for index, box in enumerate(boxes, start=1):
        if isinstance(box, dict) and _four_numbers(box.get("fbox")):
            taken.append((index, box))
        else:
            rows.reject(INVALID, "box_unreadable", f"box {index} has no fbox of four numbers", number, name)
    if taken:
        _add(rows, name, split, number, taken)


def _add(rows: Rows, name: str, split: str, number: int, taken: list[tuple[int, dict[str, Any]]]) -> None:
    tags = [str(box.get("tag")) for _, box in taken]
    ignored = [tag != "person" or _is_ignored(box) for tag, (_, box) in zip(tags, taken, strict=True)]
    visible = [box["vbox"] if _four_numbers(box.get("vbox")) else [np.nan] * 4 for _, box in taken]
    corners = xywh_corners(np.array(visible, np.float64)).astype(np.float32)
    columns = {
        f"visible_{side}": [None if np.isnan(value) else float(value) for value in corners[:, i]]
        for i, side in enumerate(("x1", "y1", "x2", "y2"))
    }
    rows.boxes(
        [name] * len(taken),
        xywh_corners(np.array([box["fbox"] for _, box in taken], np.float64)),
        split,
        [number] * len(taken),
        box_id=[f"{name}#{index}" for index, _ in taken],
        category=tags,
        ignore=ignored,
        ignore_reason=[
            None if not flag else "mask" if tag == "mask" else "ignore"
            for flag, tag in zip(ignored, tags, strict=True)
        ],
        **columns,
    )


def _is_ignored(box: dict[str, Any]) -> bool:
    extra = box.get("extra")
    return isinstance(extra, dict) and extra.get("ignore") in (1, True)


def _four_numbers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(number) in (int, float) and abs(number) < 1e30 for number in value)
    )
