"""Which COCO files a root holds, what their splits are, and where their images lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.adapters.coco_columns import read_columns
from data_catalog.adapters.coco_images import spelled
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.errors import CatalogError
from data_catalog.files import is_image, open_file, path_fault, plain_name, suspicious, walk
from data_catalog.findings import EXAMPLES
from data_catalog.image_lookup import ImageLookup, names_digest
from data_catalog.jsonstream import top_level_arrays
from data_catalog.split_names import known_split, splits_of

SAMPLE = 1000
"""Names of images that are looked at to find their folder."""
DEEPEST = 2
"""Folders above an annotation file that is found without being named."""
LESS = tuple(
    f"/{kind}_" for kind in ("person_keypoints", "captions", "panoptic", "stuff", "labels", "image_info")
)
"""How files are named that annotate the images of an `instances_` again."""
BESIDE = ("images", "data")
"""Folders of images beside an annotation file."""
LAYOUTS = (
    "*.json or annotations/*.json (COCO, CVAT, Datumaro, FiftyOne, Label Studio)",
    "a folder per split with its .json, such as train/_annotations.coco.json (Roboflow)",
    "what the option annotations names",
)


@dataclass(frozen=True)
class CocoSource:
    """An annotation file. Names of images are relative to `folder`; their ids start with `prefix`, which is
    blank unless other files have images of the same names.
    """

    name: str
    split: str
    folder: str
    prefix: str = ""


@dataclass(frozen=True)
class CocoFiles:
    """A root's annotation files, those left out since `instances_` show the same images, its image files, and
    what is to be said about them.
    """

    sources: tuple[CocoSource, ...]
    left: tuple[str, ...]
    images: ImageLookup
    notes: tuple[str, ...]


def find_coco(root: Path, annotations: str | None, within: str | None, split: str | None) -> CocoFiles:
    """The COCO files under a root; the arguments are what the user says about them.

    Raises:
        CatalogError: when there are none, or an option names nothing.
    """
    files = walk(root)
    lookup = ImageLookup(path for path in files if is_image(path))
    if annotations is not None:
        names, left = _given(root, files, annotations), list[str]()
        samples = {name: first_names(root / name) for name in names}
    else:
        samples, left = _searched(root, files)
    splits = [split] * len(samples) if split else splits_of(list(samples))
    sources, notes = [], []
    for (name, sample), each in zip(samples.items(), splits, strict=True):
        default = _default_folder(root, name, within, named=annotations is not None)
        folder, note = _folder(name, each, default, sample or [], lookup.within(within or ""))
        sources.append(CocoSource(name, each, folder))
        notes += [note] if note else []
    return CocoFiles(
        _told_apart(root, sources, has_images=bool(lookup.paths)), tuple(left), lookup, tuple(notes)
    )


def image_set(source: str) -> str:
    """`val2017` of `annotations/instances_val2017.json`."""
    return PurePosixPath(source).stem.rpartition("_")[2]


def image_paths(names: pa.Array, source: str, folder: str) -> pa.Array:
    """Paths of images by their names; a name may say the last folder itself (`val2017/1.jpg`)."""
    last = f"{image_set(source)}/"
    whole = f"{folder}/" if folder else ""
    outer = whole[: -len(last)] if f"/{whole}".endswith(f"/{last}") else whole
    says_last = pc.starts_with(names, last)
    return pc.binary_join_element_wise(pc.if_else(says_last, outer, whole), names, "")


def accents(images: ImageLookup, folder: str) -> str:
    """A digest of the files in a folder whose spelling decides on the rows; blank when there are none."""
    return names_digest(path for path in images.within(folder).paths if not path.isascii())


def first_names(path: Path) -> list[str] | None:
    """The first names of a file's images; None when it is not COCO JSON, which is an object with `images`.

    Raises:
        CatalogError: when it cannot be read, or is damaged.
    """
    if not _starts_as_object(path):
        return None
    for _, part in top_level_arrays(path, frozenset({"images"})):
        return _names(part.first(SAMPLE))
    return None


def _names(images: Sequence[object]) -> list[str]:
    values = (each.get("file_name") for each in images if isinstance(each, dict))
    return [spelled(value) for value in values if isinstance(value, str)]


def _all_names(path: Path) -> Iterator[pa.Array]:
    """The names of a file's images, in parts."""
    if not _starts_as_object(path):
        return
    found = False
    for key, part in top_level_arrays(path, frozenset({"images", "annotations"})):
        if key != "images":
            if found:
                return  # annotations are long, and need not be gone through
            continue
        found = True
        table = read_columns(part, ["file_name"]) if part.count else None
        column = None if table is None else table["file_name"].drop_null()
        if column is not None and pa.types.is_string(column.type) and not suspicious(column).any():
            yield column
        else:
            yield pa.array(_names(part.elements()), pa.string())


def _starts_as_object(path: Path) -> bool:
    with open_file(path) as file:
        start = file.read(4096)
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def _given(root: Path, files: Sequence[str], option: str) -> list[str]:
    """The annotation files that the user names: a file, a folder or a pattern."""
    name = plain_name(f"{option}/").rstrip("/")
    if path_fault(name) is None and (root / name).is_file():
        return [name]
    pattern = f"{name}/*.json" if path_fault(name) is None and (root / name).is_dir() else name
    found = [path for path in files if _matches(path.split("/"), pattern.split("/"))]
    if not found:
        raise refusal(root, "COCO dataset", (f"the annotation file {option}",), _nearest(root, files))
    return found


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _searched(root: Path, files: Sequence[str]) -> tuple[dict[str, list[str] | None], list[str]]:
    """Annotation files that no option names, with their first image names, and those that are left out."""
    names = [path for path in files if path.lower().endswith(".json") and path.count("/") <= DEEPEST]
    usual = [path for path in names if PurePosixPath(path).parent.as_posix() in (".", "annotations")]
    for candidates in (usual, [path for path in names if path not in usual]):
        left = _shown_by_instances(candidates)
        sampled = {name: first_names(root / name) for name in candidates if name not in left}
        if any(sample is not None for sample in sampled.values()):
            empty = [name for name in sampled if not (root / name).stat().st_size]
            if empty:
                raise CatalogError(f"{root / empty[0]}: the file is empty; restore it, or delete it")
            return {name: sample for name, sample in sampled.items() if sample is not None}, left
    raise refusal(root, "COCO dataset", LAYOUTS, _nearest(root, files))


def _shown_by_instances(names: Sequence[str]) -> list[str]:
    paths = {f"/{name}": name for name in names}
    shown = {path.replace("/instances_", "/") for path in paths if "/instances_" in path}
    return [
        name
        for path, name in paths.items()
        for kind in LESS
        if kind in path and path.replace(kind, "/") in shown
    ]


def _nearest(root: Path, files: Sequence[str]) -> str:
    """What comes nearest to a COCO file."""
    jsons = [path for path in files if path.lower().endswith(".json")]
    if not jsons:
        return what_is_there(files)
    shallow = [path for path in jsons if path.count("/") <= DEEPEST]
    nearest = (shallow or jsons)[0]
    if shallow and not _starts_as_object(root / nearest):
        why = "is not a JSON object"
    elif first_names(root / nearest) is None:
        why = "is not COCO JSON: it has no 'images'"
    else:
        why = f"can be named: --option annotations={nearest}"
    others = f" (of {len(jsons):,} .json files)" if len(jsons) > 1 else ""
    return f"{nearest}{others}, which {why}"


def _examples(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def _default_folder(root: Path, source: str, within: str | None, *, named: bool) -> str:
    """Where a file's images lie when nothing is known about their names."""
    beside = PurePosixPath(source).parent.as_posix()
    if within is not None:
        outer = within
    elif named or beside in (".", "annotations"):
        outer = "images" if (root / "images").is_dir() else ""
    else:
        inside = beside.removesuffix("/annotations")
        return next((f"{inside}/{each}" for each in BESIDE if (root / inside / each).is_dir()), inside)
    inner = f"{outer}/{image_set(source)}".removeprefix("/")
    return inner if path_fault(inner) is None and (root / inner).is_dir() else outer


def _folder(
    source: str, split: str, default: str, sample: Sequence[str], images: ImageLookup
) -> tuple[str, str | None]:
    """The folder that a file's names are relative to, by the files that there are, and what is to be said."""
    names = [name for name in sample if path_fault(name) is None]
    if not names or not images.paths:
        return default, None

    def lost(folder: str) -> list[str]:
        paths = image_paths(pa.array(names, pa.string()), source, folder).to_pylist()
        return [name for name, path in zip(names, paths, strict=True) if images.find(path) is None]

    without = lost(default)
    if not without:
        return default, None
    wanted = {split.lower(), image_set(source).lower(), *PurePosixPath(source.lower()).parent.parts}
    vote = images.vote(
        names, lambda part: part.lower() in wanted or (part != "" and known_split(part) == split)
    )
    if vote is not None and vote.rivals and len(without) == len(names):
        return default, (
            f"the images of {source} ({_examples(names)}) may be those in {vote.folder or '.'} or in "
            f"{_examples(vote.rivals)}: choose one by the option images"
        )
    folder = default
    if vote is not None and vote.found > len(names) - len(without):
        folder, without = vote.folder, lost(vote.folder)
    if not without:
        return folder, None
    return folder, (
        f"{len(without):,} of the first {len(names):,} names of images in {source} ({_examples(without)}) "
        f"are those of none of the {len(images.paths):,} image files ({_examples(images.paths)})"
    )


def _told_apart(root: Path, sources: Sequence[CocoSource], *, has_images: bool) -> tuple[CocoSource, ...]:
    """The sources; those that name an image as another does, but in another folder, with a prefix.

    Without image files, splits are taken for folders of their own.
    """
    places = [each.folder if has_images else f"{each.folder}/{each.split}" for each in sources]
    alike = _with_same_names(root, sources, places) if len(set(places)) > 1 else set()
    folders = {each.folder for each, place in zip(sources, places, strict=True) if place in alike}
    if len(folders) < 2:
        prefixes = {place: f"{place.rpartition('/')[2]}/" for place in alike}
    else:
        parts = _distinct_parts(sorted(folders))
        prefixes = {p: parts[s.folder] for p, s in zip(places, sources, strict=True) if p in alike}
    return tuple(
        replace(each, prefix=prefixes.get(place, "")) for each, place in zip(sources, places, strict=True)
    )


def _with_same_names(root: Path, sources: Sequence[CocoSource], places: Sequence[str]) -> set[str]:
    """The places of which a name of an image is one of another place, too."""
    names: list[pa.Array] = []
    codes: list[np.ndarray] = []
    for source, place in zip(sources, places, strict=True):
        for part in _all_names(root / source.name):
            names.append(part)
            codes.append(np.full(len(part), places.index(place), np.int32))
    if not names:
        return set()
    table = pa.table({"name": pa.chunked_array(names), "place": np.concatenate(codes)})
    of_name = table.group_by("name").aggregate([("place", "distinct"), ("place", "count_distinct")])
    shared = of_name.filter(pc.greater(of_name["place_count_distinct"], 1))["place_distinct"]
    return {places[code] for code in pc.list_flatten(shared).unique().to_pylist()}


def _distinct_parts(paths: Iterable[str]) -> dict[str, str]:
    """`train/` and `val/` for `images/train` and `images/val`: without what all paths begin and end with."""
    parts = {path: path.split("/") if path else list[str]() for path in paths}
    start = _alike(list(parts.values()))
    rest = {path: each[start:] for path, each in parts.items()}
    end = _alike([each[::-1] for each in rest.values()])
    return {path: "".join(f"{part}/" for part in each[: len(each) - end]) for path, each in rest.items()}


def _alike(lists: Sequence[Sequence[str]]) -> int:
    """How many first elements all lists share."""
    columns = zip(*lists, strict=False)
    return sum(1 for _ in takewhile(lambda each: len(set(each)) == 1, columns))
