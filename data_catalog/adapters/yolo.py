"""YOLO text labels, one file per image, as Ultralytics, Roboflow, CVAT, Label Studio and LabelImg write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from data_catalog.adapters.options import classes_option, folder_option
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.adapters.yolo_files import (
    FolderNames,
    LabelPairs,
    YoloConfig,
    YoloSplits,
    find_splits,
    pair,
    read_config,
    split_of_folders,
)
from data_catalog.adapters.yolo_labels import (
    NotFractions,
    YoloClasses,
    people_of,
    read_label,
    say_nothing,
)
from data_catalog.errors import CatalogError
from data_catalog.files import is_image, numbered_lines, usable, walk
from data_catalog.images import Unreadable, image_size
from data_catalog.rows import Rows
from data_catalog.schema import EXCLUDED, INVALID

LAYOUTS = (
    "images/ with labels/, with or without folders of splits (Ultralytics, Label Studio)",
    "<split>/images with <split>/labels (Roboflow)",
    "images with .txt files of their names beside them (LabelImg, Darknet)",
)
OTHER = ("*.cache", "*notes.json", "*.data", "*.yaml", "*.yml")
SAMPLED = 16
"""Label files that are looked at before all are read."""
_LIST, _WHOLE = "list", "whole paths"


class Yolo:
    """A row is a class and cx, cy, w, h as fractions of the image, or a polygon, whose box is taken.

    `data.yaml`, `classes.txt` or `*.names` name the classes: person, pedestrian and people are people; if
    nothing names them, class 0 is. A sixth column of confidence is not kept. Splits are those of data.yaml,
    of the folders (`valid` and `val2017` are val, `train2017` is train, `test-dev` test; any other folder is
    a split of its name), or of lists such as train.txt; images in none are train. An image without a label
    file has no people; rows of label files without an image are rejects.
    """

    name = "yolo"
    version = 4
    marks = ("images", "labels", "data.yaml", "classes.txt", "txt")
    needs_images = True  # labels are fractions of the images' sizes
    options: Mapping[str, str] = {
        "images": "folder of images (default images)",
        "labels": "folder of labels (default labels)",
        "classes": "numbers or names of the classes that are people (default: those named person, pedestrian "
        "or people; 0 where nothing names them)",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        folders = _folders(options)
        files = usable(walk(root))
        pairs = pair(files, folders)
        if not pairs.labelled and (pairs.beside or not pairs.bare):
            raise _refusal(root, files, folders)
        config = read_config(root, files, pairs.labelled)
        classes, notes = _classes(config, options)
        images = list(pairs.images())
        splits = find_splits(root, files, images, config)
        with_confidence = _sample(root, pairs, classes)
        often = Counter(map(folders.image_id, images))
        parameters = [] if classes == YoloClasses() else [classes.to_text()]
        if len(often) < len(images):
            parameters.insert(0, _WHOLE)
        orphans = _orphans(root, pairs, splits, classes)
        units = _units(pairs, orphans, splits, folders, tuple(parameters))
        read = {image for unit in units for image in unit.images}
        bare = sum(image in read for image in pairs.bare)
        if bare:
            notes.append(
                f"{bare:,} of {len(read):,} images have no label file: they count as images without people"
            )
        if with_confidence:
            notes.append(f"{with_confidence} has a sixth column, a detector's confidence: it is not kept")
        return Layout(
            tuple(units),
            shared=tuple(sorted({*config.files, *splits.lists})),
            notes=(*notes, *splits.notes),
            other=OTHER,
        )

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        parameters = unit.parameters
        if parameters[:1] == (_LIST,):
            for entry in parameters[1:]:
                line, _, name = entry.partition(":")
                rows.reject(INVALID, "entry_unknown", f"no image is called {name[:80]!r}", int(line))
            yield rows
            return
        folders = _folders(options)
        is_whole = parameters[:1] == (_WHOLE,)
        classes = YoloClasses.from_text(parameters[-1]) if len(parameters) > is_whole else YoloClasses()
        ids = [path if is_whole else folders.image_id(path) for path in unit.images]
        if ids:
            rows.images(ids, list(unit.images), unit.split)
        if unit.has_file:
            labels = _read_rows(rows, root, unit, ids[0] if ids else None, classes)
            for image_id, path in zip(ids, unit.images, strict=True):
                _add_boxes(rows, unit, labels, image_id, root / path, options)
            if not ids:
                _reject_orphan(rows, labels)
        yield rows


def _folders(options: Options) -> FolderNames:
    images, labels = (
        PurePosixPath(folder_option(options, name, name)).parts for name in ("images", "labels")
    )
    return FolderNames(images, labels)


def _classes(config: YoloConfig, options: Options) -> tuple[YoloClasses, list[str]]:
    """Which classes are people, and a sentence where nothing says so by name."""
    names, notes = config.names, []
    if "classes" in options:
        people = classes_option(options["classes"], names)
    elif not names:
        people = YoloClasses().people
    elif say_nothing(names.values()):
        people = YoloClasses().people
        notes.append(
            f"{config.named_by} gives classes no names but numbers: class 0 is taken for people "
            "(--option classes=... says otherwise)"
        )
    else:
        people = people_of(names)
        if not people:
            notes.append(
                f"{config.named_by} names no class person, pedestrian or people: say which are people "
                f"(--option classes=...) among {', '.join(list(names.values())[:10])}"
            )
    return YoloClasses(people, names, config.keypoints), notes


def _orphans(root: Path, pairs: LabelPairs, splits: YoloSplits, classes: YoloClasses) -> list[str]:
    """Label files without an image. Beside images other texts may lie: there the first row must be one."""
    orphans = [path for path in pairs.orphans if path not in splits.lists]
    return [path for path in orphans if _is_label(root / path, classes)] if pairs.beside else orphans


def _is_label(path: Path, classes: YoloClasses) -> bool:
    first = next(numbered_lines(path), None)
    try:
        return first is None or bool(read_label(first[1].split(), keypoints=classes.keypoints))
    except NotFractions:
        return True
    except ValueError:
        return False


def _units(
    pairs: LabelPairs,
    orphans: Sequence[str],
    splits: YoloSplits,
    folders: FolderNames,
    parameters: tuple[str, ...],
) -> list[Unit]:
    """Units of labels and images in the order of the images, then of what belongs to no image."""
    found: list[tuple[str, Unit]] = []
    for source, images in pairs.labelled.items():
        split = _split(images[0], splits, folders)
        if split is not None:
            found.append((images[0], Unit(source, split, images, parameters=parameters)))
    found.sort(key=lambda each: each[0])
    labelled = {unit.split for _, unit in found}
    bare: dict[tuple[str, str], list[str]] = {}
    for path in pairs.bare:
        split = _split(path, splits, folders)
        if split is not None:
            bare.setdefault((path.rpartition("/")[0], split), []).append(path)
    whole_paths = parameters[:1] if parameters[:1] == (_WHOLE,) else ()
    several = Counter(folder for folder, _ in bare)
    return [
        *(unit for _, unit in found),
        *(
            Unit(
                f"{folder}#{split}" if several[folder] > 1 else folder or ".",
                split,
                tuple(paths),
                parameters=whole_paths,
                has_file=False,
                annotated=split != "test" or split in labelled,
            )
            for (folder, split), paths in bare.items()
        ),
        *(
            Unit(
                path,
                split_of_folders(path, FolderNames(folders.labels, ())) or "train",
                parameters=parameters,
            )
            for path in orphans
        ),
        *(
            Unit(source, splits.lists[source], parameters=(_LIST, *entries))
            for source, entries in splits.lost.items()
            if entries
        ),
    ]


def _split(path: str, splits: YoloSplits, folders: FolderNames) -> str | None:
    """An image's split; None where a list of its split leaves it out."""
    listed = splits.listed.get(path)
    by_yaml = next((split for folder, split in splits.folders if path.startswith(f"{folder}/")), None)
    by_folder = split_of_folders(path, folders)
    first, last = (listed, None) if splits.authoritative else (None, listed)
    split = first or by_yaml or by_folder or last or "train"
    asked = splits.authoritative or not (by_yaml or by_folder)
    return None if asked and listed is None and split in splits.lists.values() else split


def _sample(root: Path, pairs: LabelPairs, classes: YoloClasses) -> str | None:
    """Look at some label files; one whose rows have a sixth column, if there is one.

    Raises:
        CatalogError: when most of their rows are in pixels, or text files beside images hold no labels.
    """
    sources = list(pairs.labelled)
    pixels, good, bad = 0, 0, 0
    example = confidence = None
    for source in sources[:: max(1, len(sources) // SAMPLED)][:SAMPLED]:
        for _, line in numbered_lines(root / source):
            try:
                label = read_label(line.split(), keypoints=classes.keypoints)
                confidence = confidence or (source if label.has_confidence else None)
                good += 1
            except NotFractions:
                pixels += 1
                example = example or f"{source}: {line.strip()[:80]!r}"
            except ValueError:
                bad += 1
    if pixels > good:
        raise CatalogError(
            f"{root}: labels are in pixels, where YOLO has fractions of the image's width and height: "
            f"{example}; divide them by the image's size"
        )
    if pairs.beside and bad and not good:
        raise CatalogError(
            f"{root} is not a YOLO dataset: the text files beside images, such as {sources[0]}, hold no "
            "rows of 'class cx cy w h'"
        )
    return confidence


def _read_rows(
    rows: Rows, root: Path, unit: Unit, image_id: str | None, classes: YoloClasses
) -> list[tuple[int, tuple[float, float, float, float]]]:
    """(row, box in fractions) of each person of a label file; the other rows go to the rejects."""
    taken = []
    for number, line in numbered_lines(root / unit.source):
        parts = line.split()
        try:
            label = read_label(parts, keypoints=classes.keypoints)
        except ValueError as error:
            code = "not_fractions" if isinstance(error, NotFractions) else "row_unreadable"
            rows.reject(INVALID, code, f"{error}: {' '.join(parts)[:80]!r}", number, image_id)
            continue
        if label.kind not in classes.people:
            rows.reject(EXCLUDED, "not_a_person", classes.describe(label.kind), number, image_id)
        else:
            taken.append((number, label.box))
    return taken


def _add_boxes(
    rows: Rows,
    unit: Unit,
    labels: Sequence[tuple[int, tuple[float, float, float, float]]],
    image_id: str,
    path: Path,
    options: Options,
) -> None:
    if not labels:
        return
    numbers = [number for number, _ in labels]
    try:
        width, height = image_size(path, options.get("exif", "apply"))
    except Unreadable as error:  # the ingest moves the image itself to the rejects
        rows.rejects(INVALID, "image_rejected", f"its size is not known: {error}", numbers, image_id)
        return
    boxes = np.array([box for _, box in labels]) * np.array([width, height, width, height], np.float64)
    rows.boxes([image_id] * len(labels), boxes, unit.split, numbers)


def _reject_orphan(rows: Rows, labels: Sequence[tuple[int, tuple[float, float, float, float]]]) -> None:
    """Rows of a label file that no image belongs to; one for the file where it holds none."""
    detail = "no image has this label file's name"
    numbers = [number for number, _ in labels]
    if numbers:
        rows.rejects(INVALID, "label_without_image", detail, numbers)
    elif not rows.count():
        rows.reject(INVALID, "label_without_image", detail, 0)


def _twins(files: Sequence[str], labels: Sequence[str]) -> tuple[str, str, str, str] | None:
    """An image and a text file of its name in other folders, and these folders' names."""
    stems = {PurePosixPath(path).stem: path for path in files if is_image(path) and "/" in path}
    for label in labels:
        image = stems.get(PurePosixPath(label).stem)
        if image is not None and "/" in label and image.split("/")[0] != label.split("/")[0]:
            return image, label, image.split("/")[0], label.split("/")[0]
    return None


def _refusal(root: Path, files: Sequence[str], folders: FolderNames) -> CatalogError:
    """Which layouts were looked for, and what is nearest to one."""
    images = [path for path in files if folders.places(path)]
    deeper = [path for path in files if "images" in PurePosixPath(path).parts[:-1] and path not in images]
    labels = [path for path in files if path.lower().endswith(".txt")]
    other = next((path for path in files if "labels_with_ids" in PurePosixPath(path).parts[:-1]), None)
    if other:
        nearest = f"{other}, as JDE and FairMOT write it: use the adapter jde"
    elif twins := _twins(files, labels):
        nearest = "{} with {}: --option images={} --option labels={}".format(*twins)
    elif images:
        nearest = f"{images[0]}, but there is no folder {'/'.join(folders.labels)} with its label"
    elif deeper:
        nearest = f"{deeper[0]}: give a folder further down as the root"
    elif labels:
        nearest = f"{labels[0]}, but no image has its name"
    else:
        nearest = what_is_there(files)
    return refusal(root, "YOLO dataset", LAYOUTS, nearest)
