"""Pascal VOC (Everingham et al. 2010) XML, one file per image: PASCAL, LabelImg, Roboflow, CVAT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from data_catalog.adapters.box_records import BoxRecord, add_boxes
from data_catalog.adapters.options import (
    PEOPLE,
    first_pixel_option,
    folder_option,
    identity_option,
    names_option,
    plain,
)
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.adapters.split_lists import splits_by_lists, unlisted_entries
from data_catalog.adapters.voc_files import ListedSources, XmlImages, joined, lists_of_splits
from data_catalog.errors import CatalogError
from data_catalog.files import path_fault, plain_name, usable, walk
from data_catalog.ids import identity, number, side
from data_catalog.rows import Rows
from data_catalog.schema import EXCLUDED, INVALID, SCOPE_SEQUENCE
from data_catalog.split_names import common_folder, split_of_path
from data_catalog.xmlstream import DamagedXml, Element, read_tree, root_tag

LAYOUTS = (
    "Annotations/*.xml with JPEGImages/ (or images/) and, for splits, ImageSets/Main/*.txt",
    "XML files beside their images, in the root or in folders such as train, valid and test",
)
OTHER = (
    "*SegmentationClass/*", "*SegmentationObject/*", "*ImageSets/*", "*labelmap.txt",
    "*classes.txt", "*predefined_classes.txt",
)  # fmt: skip
LOOKED_AT = 64
"""Files."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Voc:
    """Boxes are xmin, ymin, xmax, ymax; the first pixel is 1 and the last one is included, as in PASCAL's own
    files, unless `first_pixel` says 0.

    `difficult` makes an ignore region; other classes are `excluded`. An XML file without an image is a
    reject; an image without an XML file is not read, since nothing says that it is empty.
    """

    name = "voc"
    version = 1
    marks = ("Annotations", "JPEGImages", "ImageSets", "xml")
    options: Mapping[str, str] = {
        "annotations": "folder of XML files; by default all in the root",
        "images": "folder of images; by default JPEGImages or images beside the folder of annotations, or "
        "else that of the XML file",
        "categories": f"names of the classes that are people, in any case (default {PEOPLE})",
        "first_pixel": "1 (default): PASCAL's corners are pixels, counted from 1, the last included; 0: "
        "corners are points, counted from 0, as CVAT and datumaro write them",
        "person_id": "element of an object that holds its identity in the dataset, as attributes.person_id",
        "track_id": "element of an object that holds its identity within its sequence, the image's folder",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        first_pixel_option(options)
        identity_option(options)
        files = usable(walk(root))
        folder = folder_option(options, "annotations", "")
        sources = [
            path
            for path in files
            if path.lower().endswith(".xml") and path.startswith(f"{folder}/" if folder else "")
        ]
        _check_format(root, files, sources)
        images = XmlImages(files, folder_option(options, "images", "") if "images" in options else None)
        lists = lists_of_splits(files)
        splits, units = splits_by_lists(root, lists, ListedSources(sources).find)
        prefix = len(common_folder(sources))
        for source in sources:
            split = splits.get(source) if lists else split_of_path(source[prefix:])
            if split is not None:
                units.append(_unit(root, source, split, images))
        _check_pairs(root, units, images)
        notes = () if "first_pixel" in options else _first_pixel_notes(root, sources)
        return Layout(tuple(units), shared=tuple(name for name, _ in lists), notes=notes, other=OTHER)

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        if unit.source.lower().endswith(".txt"):
            yield unlisted_entries(unit)
            return
        rows = Rows(unit.source)
        try:
            tree = read_tree(root / unit.source)
            if tree.tag != "annotation":
                raise DamagedXml(f"its root is <{tree.tag[:40]}>, not <annotation>")
            path = unit.images[0] if unit.images else _guess(unit, tree)
        except DamagedXml as error:
            rows.reject(INVALID, "file_unreadable", f"not a readable VOC file: {error}", 0)
        else:
            if path is None:
                detail = f"its image {tree.text_of('filename')[:80]!r} is not there"
                rows.reject(INVALID, "image_missing", detail, 0)
            else:
                _read_file(rows, unit, tree, path, options)
        yield rows


def _check_format(root: Path, files: Sequence[str], sources: Sequence[str]) -> None:
    if not sources:
        raise refusal(root, "VOC dataset", LAYOUTS, what_is_there(files))
    for source in sources[:8]:  # a damaged one says nothing about the others
        tag = root_tag(root / source)
        if tag == "annotation":
            return
        if tag == "annotations":
            raise refusal(
                root, "VOC dataset", LAYOUTS, f"{source}, which looks like CVAT's XML (adapter cvat)"
            )
        if tag is not None:
            raise refusal(
                root, "VOC dataset", LAYOUTS, f"{source}, whose root is <{tag[:40]}>, not <annotation>"
            )


def _first_pixel_notes(root: Path, sources: Sequence[str]) -> tuple[str, ...]:
    """A note where one of the first files has a corner of 0, which PASCAL's own counting does not have."""
    for source in sources[:LOOKED_AT]:
        try:
            tree = read_tree(root / source)
        except DamagedXml:
            continue
        boxes = (found.child("bndbox") for found in tree.children if found.tag == "object")
        texts = [box.text_of(name) for box in boxes if box is not None for name in CORNERS[:2]]
        if any(_is_below_1(text) for text in texts):
            note = (
                f"{source} has a corner before pixel 1: read files that count from 0, as CVAT and datumaro "
                "write them, with --option first_pixel=0"
            )
            return (note,)
    return ()


def _is_below_1(text: str) -> bool:
    try:
        return number(text) < 1
    except ValueError:
        return False


def _unit(root: Path, source: str, split: str, images: XmlImages) -> Unit:
    """The unit of an XML file. Where the root has no image at all, its parameter is where they would be."""
    found = images.find(source)
    if found is None and images.paths:
        found = images.find_named(source, _named_image(root / source))
    if found is not None:
        return Unit(source, split, images=(found,))
    return Unit(source, split, parameters=() if images.paths else (images.folders_for(source)[0],))


def _named_image(path: Path) -> str:
    try:
        return read_tree(path).text_of("filename") or "?"
    except DamagedXml:
        return "?"  # its reading says what is wrong


def _check_pairs(root: Path, units: Sequence[Unit], images: XmlImages) -> None:
    """Raise CatalogError where no XML file has an image, though images are there, or two have one."""
    image_of: dict[str, str] = {}
    for unit in units:
        for path in unit.images:
            if image_of.setdefault(path, unit.source) != unit.source:
                raise CatalogError(
                    f"{root}: {image_of[path]} and {unit.source} are both of the image {path}; keep one"
                )
    if images.paths and not image_of:
        example = next(unit.source for unit in units if not unit.source.lower().endswith(".txt"))
        looked = ", ".join(folder or "the root" for folder in images.folders_for(example))
        raise CatalogError(
            f"{root}: no XML file has an image of its name: for {example} it was looked for in {looked}; "
            f"there are images such as {images.paths[0]}. Name their folder: --option images=FOLDER"
        )


def _guess(unit: Unit, tree: Element) -> str | None:
    """Where the image would be, in a root without any."""
    if not unit.parameters:
        return None
    name = PurePosixPath(plain_name(tree.text_of("filename"))).name
    if not PurePosixPath(name).suffix:
        name = f"{PurePosixPath(unit.source).stem}.jpg"
    return joined(unit.parameters[0], name)


def _read_file(rows: Rows, unit: Unit, tree: Element, path: str, options: Options) -> None:
    if fault := path_fault(path):
        rows.reject(INVALID, "image_path", f"{fault}: {path[:80]!r}", 0)
        return
    size = tree.child("size")
    sides = [side(size.text_of(name)) if size is not None else None for name in ("width", "height")]
    width, height = sides if all(sides) else (None, None)
    key, scope = identity_option(options)
    sequence = (path.rpartition("/")[0] or ".") if key and scope == SCOPE_SEQUENCE else None
    rows.images([path], [path], unit.split, width=width, height=height, sequence_id=sequence)
    people = names_option(options, "categories", PEOPLE)
    first_pixel = first_pixel_option(options)
    taken: list[BoxRecord] = []
    for row, found in enumerate((each for each in tree.children if each.tag == "object"), start=1):
        name = found.text_of("name")
        if plain(name) not in people:
            rows.reject(EXCLUDED, "not_a_person", f"class {name[:40]!r}", row, path)
            continue
        try:
            corners = _corners(found, first_pixel)
            raw = _value(found, key) if key else None
            person = identity(raw)
        except ValueError as error:
            rows.reject(INVALID, "row_unreadable", f"line {found.line}: {error}", row, path)
            continue
        reason = "difficult" if found.text_of("difficult").lower() in ("1", "true", "yes") else None
        person = f"{sequence}/{person}" if person is not None and sequence is not None else person
        taken.append(BoxRecord(path, unit.split, corners, row, plain(name), reason, person, raw))
    add_boxes(rows, taken, person_scope=scope)


def _corners(found: Element, first_pixel: int) -> list[float]:
    """Raises ValueError, with the reason, for an object whose box is damaged."""
    box = found.child("bndbox")
    if box is None:
        raise ValueError("an object without <bndbox>")
    corners = []
    for name in CORNERS:
        text = box.text_of(name)
        if not text:
            raise ValueError(f"<bndbox> without <{name}>")
        corners.append(number(text))
    return [corners[0] - first_pixel, corners[1] - first_pixel, corners[2], corners[3]]


def _value(found: Element, key: str) -> str | None:
    """The text of an element inside an object by its path, as `attributes.track_id`: either elements of
    those names, or <attribute> with <name> and <value>, as CVAT writes them.
    """
    first, *rest = key.split(".")
    inner = found.child(first)
    for name in rest:
        if inner is None:
            return None
        named = next((each for each in inner.children if each.text_of("name") == name), None)
        inner = named.child("value") if named is not None else inner.child(name)
    return inner.text if inner is not None else None
