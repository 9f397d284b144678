"""JDE (Wang et al. 2020) and FairMOT (Zhang et al. 2021): text labels with identities, one file per image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path, PurePosixPath

import numpy as np

from data_catalog.adapters.options import choice_option, classes_option, folder_option
from data_catalog.adapters.protocol import APPLY, Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.adapters.split_lists import splits_by_lists, unlisted_entries
from data_catalog.errors import CatalogError
from data_catalog.files import (
    NameLookup,
    files_with_suffix,
    frame_number,
    image_files,
    numbered_lines,
    plain_name,
    usable,
    walk,
)
from data_catalog.ids import identity, number, whole
from data_catalog.images import Unreadable, image_size
from data_catalog.rows import Rows
from data_catalog.schema import EXCLUDED, INVALID, SCOPE_DATASET, SCOPE_SEQUENCE
from data_catalog.split_names import split_of_path

DATASET, SEQUENCE = "dataset", "sequence"
LIST_SUFFIXES = {".train": "train", ".val": "val", ".test": "test"}
FRAME_FOLDER = "img1"
LARGEST_FRACTION = 10.0
"""Boxes may leave their image; a coordinate beyond this many image widths is not a fraction."""
OTHER = ("*seqinfo.ini", "*/gt/*.txt", "*/det/*.txt", "*classes.txt")
LAYOUTS = (
    "images/[<split>/][<sequence>/img1/]NAME.jpg with labels_with_ids/.../NAME.txt",
    "the same with FairMOT's lists of images (*.train, *.val, *.test) in the root",
)


class Jde:
    """Lines are class, identity, cx, cy, w, h, the last four as fractions of the image's size; identity -1 is
    unknown. They are read as they are; JDE's own scripts keep MOT's counting of pixels from 1.

    Identities are the dataset's, as JDE numbers them over all of its sequences. Splits are the first folder
    in `images`, or what FairMOT's lists in the root say; then images in no list are not read. An image
    without a label file has no people, as in YOLO, provided that its folder has label files.
    """

    name = "jde"
    version = 1
    marks = ("labels_with_ids", "images")
    needs_images = True  # labels are fractions of the images' sizes
    options: Mapping[str, str] = {
        "images": "folder of images (default images)",
        "labels": "folder of labels (default labels_with_ids)",
        "classes": "numbers of the classes that are people (default 0)",
        "identities": f"{DATASET} (default): a number is one person in all sequences; {SEQUENCE}: in one "
        "sequence only, which is the image's folder",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        images, labels = _folders(options)
        _classes(options)
        _scope(options)
        pictures = usable(image_files(root, images, recursive=True))
        sources = _label_files(root, labels)
        if not pictures or not sources:
            raise refusal(root, "JDE dataset", LAYOUTS, _nearest(root, images, labels, len(pictures)))
        labels_of = _pairs(root, images, labels, pictures, sources)
        lists = [
            (name, LIST_SUFFIXES[PurePosixPath(name).suffix.lower()])
            for name in walk(root, recursive=False)
            if PurePosixPath(name).suffix.lower() in LIST_SUFFIXES
        ]
        found = NameLookup(pictures)
        splits, units = splits_by_lists(root, lists, lambda entry: _in_root(entry, found))
        if not lists:
            splits = {path: _split_of(_inside(path, images)) for path in pictures}
        folders = {path.rpartition("/")[0] for path in labels_of}
        bare = {path: split for path, split in splits.items() if path not in labels_of}
        unread = sorted({folder for path in bare if (folder := path.rpartition("/")[0]) not in folders})
        units += [Unit(labels_of[path], splits[path], (path,)) for path in splits if path in labels_of]
        units += _without_labels({p: split for p, split in bare.items() if p.rpartition("/")[0] in folders})
        units += [
            Unit(path, _split_of(_inside(path, labels)))
            for path in sorted(set(sources.values()) - set(labels_of.values()))
        ]
        notes = [f"{folder} has no label file: its images are not read" for folder in unread]
        read = [path for path in splits if path.rpartition("/")[0] in folders]
        empty = sum(path in bare for path in read)
        if empty:
            notes.append(
                f"{empty:,} of {len(read):,} images have no label file: they count as images without people"
            )
        other = (*OTHER, *(f"{escape(folder)}/*" for folder in unread))
        return Layout(tuple(units), shared=tuple(name for name, _ in lists), notes=tuple(notes), other=other)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        if unit.parameters:
            yield unlisted_entries(unit)
            return
        rows = Rows(unit.source)
        if not unit.images:
            detail = "a label file without an image"
            rows.reject(INVALID, "image_missing", detail, 0)
            yield rows
            return
        folder = _folders(options)[0]
        ids = [_inside(path, folder) for path in unit.images]
        sequences = [_sequence(each, options) for each in ids]
        frames = [
            frame_number(each) if s is not None else None for each, s in zip(ids, sequences, strict=True)
        ]
        rows.images(ids, list(unit.images), unit.split, sequence_id=sequences, frame_index=frames)
        if unit.has_file:
            _read_labels(rows, root, unit, ids[0], options)
        yield rows


def _folders(options: Options) -> tuple[str, str]:
    return folder_option(options, "images", "images"), folder_option(options, "labels", "labels_with_ids")


def _classes(options: Options) -> frozenset[int]:
    return classes_option(options.get("classes", "0"), {})


def _scope(options: Options) -> str:
    return {DATASET: SCOPE_DATASET, SEQUENCE: SCOPE_SEQUENCE}[
        choice_option(options, "identities", DATASET, SEQUENCE)
    ]


def _nearest(root: Path, images: str, labels: str, pictures: int) -> str:
    files = walk(root)
    inner = sorted({path[: path.index("/labels_with_ids/")] for path in files if "/labels_with_ids/" in path})
    if inner:
        several = f" and {len(inner) - 1} more: ingest each as a dataset of its own" if len(inner) > 1 else ""
        return f"a dataset of this kind in {inner[0]}{several}; give that folder as the root"
    if pictures and any(path.startswith("labels/") for path in files):
        return f"{pictures:,} images in {images}/ and labels/ without identities, as in YOLO (adapter yolo)"
    if pictures:
        return f"{pictures:,} images in {images}/ and no .txt in {labels}/"
    return what_is_there(files)


def _in_root(entry: str, found: NameLookup) -> str | None:
    """The image that a list's entry names, from the root, a folder above it, or the file system's root."""
    parts = entry.split("/")
    candidates = (found.find("/".join(parts[at:])) for at in range(len(parts)))
    return next((path for path in candidates if path is not None), None)


def _inside(path: str, folder: str) -> str:
    return path.removeprefix(f"{folder}/") if folder else path


def _split_of(inside: str) -> str:
    """The split of a file by its first folder, unless that is a sequence's: `[SPLIT/]SEQUENCE/img1/NAME`."""
    parts = PurePosixPath(inside).parts
    own = parts[:-3] if parts[-2:-1] == (FRAME_FOLDER,) else parts[:-1]
    return split_of_path("/".join((*own, parts[-1])))


def _label_files(root: Path, labels: str) -> dict[str, str]:
    """Label files by their path without the suffix; a list of classes is not one."""
    found = usable(files_with_suffix(root, labels, ".txt", recursive=True))
    return {plain_name(path[:-4]): path for path in found if path.rpartition("/")[2].lower() != "classes.txt"}


def _pairs(
    root: Path, images: str, labels: str, pictures: Sequence[str], sources: Mapping[str, str]
) -> dict[str, str]:
    """The label file of each image that has one: of the same folder and name."""
    pairs: dict[str, str] = {}
    image_of: dict[str, str] = {}
    for path in pictures:
        stem = plain_name(f"{labels}/{_inside(path, images)}".removeprefix("/").rpartition(".")[0])
        if stem in sources:
            pairs[path] = sources[stem]
            if image_of.setdefault(stem, path) != path:
                raise CatalogError(
                    f"{root}: {sources[stem]} is the label file of both {image_of[stem]} and {path}"
                )
    if not pairs:
        raise CatalogError(
            f"{root}: no label file has an image: {images}/A/B.jpg is described by {labels}/A/B.txt, "
            "of the same folder and name"
        )
    return pairs


def _without_labels(splits: Mapping[str, str]) -> list[Unit]:
    """Units of images that have no label file, one per folder and split."""
    bare: dict[tuple[str, str], list[str]] = {}
    for path, split in splits.items():
        bare.setdefault((path.rpartition("/")[0], split), []).append(path)
    return [
        Unit(f"{folder} ({split}, without labels)", split, tuple(paths), has_file=False)
        for (folder, split), paths in bare.items()
    ]


def _sequence(image_id: str, options: Options) -> str | None:
    """`train/MOT17-02-SDP` of `train/MOT17-02-SDP/img1/000001.jpg`; else the folder, where identities need
    it.
    """
    folder = image_id.rpartition("/")[0]
    if folder == FRAME_FOLDER or folder.endswith(f"/{FRAME_FOLDER}"):
        return folder.removesuffix(FRAME_FOLDER).rstrip("/") or FRAME_FOLDER
    return (folder or ".") if _scope(options) == SCOPE_SEQUENCE else None


def _read_labels(rows: Rows, root: Path, unit: Unit, image_id: str, options: Options) -> None:
    people = _classes(options)
    taken: list[tuple[int, str, str | None, list[float]]] = []
    for line_number, line in numbered_lines(root / unit.source):
        parts = line.split()
        try:
            kind, person, box = _parsed(parts)
        except ValueError as error:
            rows.reject(INVALID, "row_unreadable", f"{error}: {line.strip()[:80]!r}", line_number, image_id)
            continue
        if kind not in people:
            rows.reject(EXCLUDED, "not_a_person", f"class {kind}", line_number, image_id)
        else:
            taken.append((line_number, parts[1], person, box))
    if taken:
        _add(rows, root, unit, image_id, taken, options)


def _parsed(parts: list[str]) -> tuple[int, str | None, list[float]]:
    if len(parts) != 6:
        raise ValueError(f"{len(parts)} values, not the 6 of 'class identity cx cy w h'")
    kind, person = whole(parts[0]), whole(parts[1])
    box = [number(part) for part in parts[2:]]
    if max(map(abs, box)) > LARGEST_FRACTION:
        raise ValueError("coordinates in pixels, not in fractions of the image's size")
    return kind, identity(person), box


def _add(
    rows: Rows,
    root: Path,
    unit: Unit,
    image_id: str,
    taken: list[tuple[int, str, str | None, list[float]]],
    options: Options,
) -> None:
    lines = [line for line, *_ in taken]
    try:
        scale = np.array(image_size(root / unit.images[0], options.get("exif", APPLY)), np.float64)
    except Unreadable as error:  # the ingest moves the image itself to the rejects
        rows.rejects(INVALID, "image_rejected", f"its size is not known: {error}", lines, image_id)
        return
    boxes = np.array([box for *_, box in taken])
    low, high = (boxes[:, :2] - boxes[:, 2:] / 2) * scale, (boxes[:, :2] + boxes[:, 2:] / 2) * scale
    scope = _scope(options)
    prefix = f"{_sequence(image_id, options)}/" if scope == SCOPE_SEQUENCE else ""
    rows.boxes(
        [image_id] * len(taken),
        np.hstack([low, high]),
        unit.split,
        lines,
        person_id=[None if person is None else f"{prefix}{person}" for _, _, person, _ in taken],
        person_id_raw=[raw for _, raw, _, _ in taken],
        person_scope=scope,
    )
