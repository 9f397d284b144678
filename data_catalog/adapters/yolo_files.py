"""Which files a YOLO dataset is made of: images, their labels, names of classes, and lists of splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data_catalog.adapters.yolo_labels import people_of
from data_catalog.errors import CatalogError
from data_catalog.files import NameLookup, is_image, numbered_lines, plain_name, read_text
from data_catalog.ids import whole
from data_catalog.split_names import SPLITS, whole_name_split
from data_catalog.yaml_text import YamlError, parse_yaml

_NO_LABELS = re.compile(r"(classes|.*readme.*|.*licen[cs]e.*)\.txt", re.IGNORECASE)


@dataclass(frozen=True)
class FolderNames:
    """The names of the folders of images and labels, as parts of a path; none for the root itself."""

    images: tuple[str, ...]
    labels: tuple[str, ...]

    def places(self, path: str) -> list[int]:
        """Where the images' folder stands in a path: as one of the first two folders, or again further in."""
        parts, size = tuple(path.split("/")[:-1]), len(self.images)
        found = [at for at in range(len(parts) - size + 1) if parts[at : at + size] == self.images]
        return found if found and found[0] <= 1 else []

    def label_stems(self, path: str) -> Iterator[str]:
        """What its label may be called, without a suffix: in the labels' folder, or beside the image."""
        parts = _stem(path).split("/")
        for at in reversed(self.places(path)):
            yield "/".join((*parts[:at], *self.labels, *parts[at + len(self.images) :]))
        yield "/".join(parts)

    def image_id(self, path: str) -> str:
        """The image's path without the images' folder."""
        places = self.places(path)
        if not places:
            return path
        parts = path.split("/")
        return "/".join((*parts[: places[0]], *parts[places[0] + len(self.images) :]))

    def holds_label(self, path: str) -> bool:
        """Whether a text file lies in a folder of labels."""
        return bool(FolderNames(self.labels, ()).places(path))


@dataclass(frozen=True)
class LabelPairs:
    """Images by their labels; images without one; label files without an image."""

    labelled: Mapping[str, tuple[str, ...]]
    bare: tuple[str, ...]
    orphans: tuple[str, ...]
    beside: bool
    """Whether labels lie beside their images."""

    def images(self) -> Iterator[str]:
        """All images."""
        for paths in self.labelled.values():
            yield from paths
        yield from self.bare


def pair(files: Sequence[str], folders: FolderNames) -> LabelPairs:
    """Find each image's label. Where some images lie in a folder of images, and labels in one of labels, only
    these are the dataset's; otherwise images beside text files of their names are, and the others in their
    folders.
    """
    texts = {plain_name(_stem(path)): path for path in reversed(files) if path.lower().endswith(".txt")}
    images = [path for path in files if is_image(path)]
    has_folders = any(folders.holds_label(path) for path in texts.values()) and any(
        folders.places(path) for path in images
    )
    labelled: dict[str, list[str]] = {}
    bare: list[str] = []
    for path in images:
        if has_folders and not folders.places(path):
            continue
        stems = map(plain_name, folders.label_stems(path))
        label = next((texts[stem] for stem in stems if stem in texts), None)
        if label is None:
            bare.append(path)
        else:
            labelled.setdefault(label, []).append(path)
    homes = {_parent(path) for path in labelled}
    if not has_folders:
        bare = [path for path in bare if _parent(path) in homes]
    lost = [path for path in files if path.lower().endswith(".txt") and path not in labelled]
    orphans = [
        path
        for path in lost
        if (folders.holds_label(path) if has_folders else _parent(path) in homes)
        and not _NO_LABELS.fullmatch(PurePosixPath(path).name)
    ]
    return LabelPairs(
        {k: tuple(v) for k, v in labelled.items()}, tuple(bare), tuple(orphans), not has_folders
    )


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _stem(path: str) -> str:
    """A file's path without its suffix; it has one."""
    return path.rpartition(".")[0]


def split_of_folders(path: str, folders: FolderNames) -> str | None:
    """The split that the folders of an image say, by one of its name at least; None where it is in none.

    A folder that is not called like a split is one of its own name: what may be a test is not train.
    """
    parts, places = path.split("/")[:-1], folders.places(path)
    end = places[0] if places else len(parts)
    before, after = parts[:end], parts[end + len(folders.images) :]
    known = next((split for split in map(whole_name_split, [*before, *after[:1]]) if split), None)
    return known or next(iter([*after, *before]), None)


@dataclass
class YoloConfig:
    """What files beside images and labels say, and which these are."""

    names: dict[int, str] = field(default_factory=dict)
    named_by: str = ""
    keypoints: bool = False
    entries: list[tuple[str, str]] = field(default_factory=list)
    """(split, folder or list of images) of data.yaml."""
    files: list[str] = field(default_factory=list)

    def add_names(self, source: str, names: dict[int, str]) -> None:
        """Names of classes from one more file.

        Raises:
            CatalogError: when other classes are people by it than by the first.
        """
        if not self.named_by:
            self.names, self.named_by = names, source
        elif people_of(names) != people_of(self.names):
            raise CatalogError(
                f"{self.named_by} and {source} name other classes as people; "
                "say which are: --option classes=0"
            )


def read_config(root: Path, files: Sequence[str], labels: Iterable[str]) -> YoloConfig:
    """Read data.yaml (any YAML with `names` at the root or one folder down), classes.txt, Darknet's *.names.

    Raises:
        CatalogError: when one is damaged, or two contradict each other.
    """
    config = YoloConfig()
    known = frozenset(labels)
    for path in files:
        if path.count("/") <= 1 and path.lower().endswith((".yaml", ".yml")):
            _read_yaml(config, root, path)
    for path in files:
        name = PurePosixPath(path).name.lower()
        if path not in known and (name == "classes.txt" or name.endswith(".names")):
            lines = [line.strip() for line in read_text(root / path).splitlines()]
            while lines and not lines[-1]:
                lines.pop()
            config.files.append(path)
            if lines:
                config.add_names(path, dict(enumerate(lines)))
    return config


def _read_yaml(config: YoloConfig, root: Path, path: str) -> None:
    text = read_text(root / path)
    if "names" not in text:
        return
    try:
        found = parse_yaml(text, str(root / path), any_names=True)
    except YamlError as error:
        raise CatalogError(str(error)) from error
    if not isinstance(found, dict) or "names" not in found:
        return
    config.files.append(path)
    config.keypoints = config.keypoints or bool(found.get("kpt_shape"))
    config.add_names(path, _names(root / path, found["names"]))
    for split, key in (("train", "train"), ("val", "val"), ("val", "valid"), ("test", "test")):
        value = found.get(key)
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str) and entry.strip():
                config.entries.append((split, entry.strip()))


def _names(path: Path, value: Any) -> dict[int, str]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
    try:
        names = {whole(kind): str(name) for kind, name in pairs}
    except ValueError as error:
        raise CatalogError(f"{path}: names: {error}; give a list, or numbers with names") from error
    if not names:
        raise CatalogError(f"{path}: names: give a list, or numbers with names")
    return names


@dataclass(frozen=True)
class YoloSplits:
    """Splits of images by lists and by data.yaml."""

    listed: Mapping[str, str]
    folders: tuple[tuple[str, str], ...]
    lost: Mapping[str, tuple[str, ...]]
    """Entries of each list that name no image, as LINE:NAME."""
    lists: Mapping[str, str]
    authoritative: bool
    notes: tuple[str, ...]


def find_splits(root: Path, files: Sequence[str], images: Sequence[str], config: YoloConfig) -> YoloSplits:
    """Splits that data.yaml names, by folders or lists; else those of lists such as train.txt at the root."""
    there = frozenset(files)
    folders: dict[str, str] = {}
    lists: dict[str, str] = {}
    notes: list[str] = []
    above = {parent for path in images for parent in _parents(path)}
    for split, entry in config.entries:
        found = _entry(entry, lambda name: name in there or name in above)
        target = lists if found is not None and found.lower().endswith(".txt") and found in there else folders
        if found is not None and target.setdefault(found, split) != split:
            notes.append(
                f"{config.named_by} gives {found} to {target[found]} and {split}: read as {target[found]}"
            )
    is_told = bool(lists)
    if not lists:
        lists = {path: meant for path in files if (meant := _list_split(root, path))}
    lookup = NameLookup(images)
    listed: dict[str, str] = {}
    lost: dict[str, tuple[str, ...]] = {}
    twice = 0
    for source in sorted(lists, key=lambda name: SPLITS.index(lists[name])):
        missing: list[str] = []
        for line, text in numbered_lines(root / source):
            image = _entry(text.strip(), lambda name: lookup.find(name) is not None)
            if image is None:
                missing.append(f"{line}:{text.strip()}")
            elif image:
                twice += listed.setdefault(lookup.find(image) or image, lists[source]) != lists[source]
        lost[source] = tuple(missing)
    if twice:
        notes.append(
            f"{twice:,} images are listed in two splits: each is read in the first of {', '.join(SPLITS)}"
        )
    order = sorted(folders.items(), key=lambda item: -len(item[0]))
    return YoloSplits(listed, tuple(order), lost, lists, is_told, tuple(notes))


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = _parent(path)
        yield path


def _entry(entry: str, is_there: Callable[[str], bool]) -> str | None:
    """A path of another machine as one under the root: by its last parts, two at least unless it is there."""
    parts = [part for part in plain_name(entry).split("/") if part not in ("", ".", "..")]
    minimum = min(2, len(parts))
    for start in range(len(parts) - minimum + 1):
        name = "/".join(parts[start:])
        if is_there(name):
            return name
    return None


def _list_split(root: Path, path: str) -> str | None:
    """The split of a list of images at the root, None for any other file."""
    if "/" in path or not path.lower().endswith(".txt"):
        return None
    split = whole_name_split(path[:-4].removeprefix("autosplit_"))
    if split is None:
        return None
    _, first = next(numbered_lines(root / path), (0, ""))
    return split if is_image(first.strip()) else None
