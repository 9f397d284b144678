"""Which files of a VOC dataset belong together: XML files, their images, and lists of splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from data_catalog.errors import CatalogError
from data_catalog.files import is_image, plain_name
from data_catalog.image_lookup import ImageLookup
from data_catalog.split_names import split_of

ANNOTATIONS = ("annotations", "annotation", "xmls", "xml")
IMAGES = ("JPEGImages", "images", "Images")
"""Folders beside that of the annotations, in the order in which images are looked for."""
LISTS = "ImageSets/Main/"


def lists_of_splits(files: Sequence[str]) -> list[tuple[str, str]]:
    """PASCAL's lists of images and their splits; lists of single classes (`person_train`) are left out, and
    trainval is not needed where train and val are there.
    """
    found = {
        PurePosixPath(path).stem: path for path in files if LISTS in f"/{path}" and path.endswith(".txt")
    }
    folders = {path.rpartition("/")[0] for path in found.values()}
    if len(folders) > 1:
        raise CatalogError(
            f"several VOC datasets in one root: {', '.join(sorted(folders))}; ingest each by itself"
        )
    ends = {"train", "val", "trainval", "test", *found}
    whole_sets = [name for name in found if not any(name.endswith(f"_{end}") for end in ends)]
    if "trainval" in whole_sets and {"train", "val"} <= set(whole_sets):
        whole_sets.remove("trainval")
    return [(found[name], split_of(name)) for name in sorted(whole_sets)]


class ListedSources:
    """XML files by what a list calls them: the path in the folder of annotations or the name alone, both
    without a suffix or with an image's.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._inner = {plain_name(path[:-4]): path for path in sources}
        self._names: dict[str, str | None] = {}
        for path in sources:
            name = plain_name(PurePosixPath(path).stem)
            self._names[name] = None if name in self._names else path  # the name alone may mean several
            parts = PurePosixPath(plain_name(path[:-4])).parts
            at = next((i for i, part in enumerate(parts) if part.lower() in ANNOTATIONS), None)
            if at is not None:
                self._inner["/".join(parts[at + 1 :])] = path

    def find(self, entry: str) -> str | None:
        plain_entry = entry.rpartition(".")[0] if is_image(entry) else entry
        return self._inner.get(plain_entry) or self._names.get(PurePosixPath(plain_entry).name)


class XmlImages:
    """Finds the image of an XML file by the folders of both, and by the file's name or the one in it."""

    def __init__(self, files: Sequence[str], folder: str | None) -> None:
        """`folder` holds the images of all XML files; None where it lies beside that of each."""
        self.folder = folder
        self.lookup = ImageLookup(path for path in files if is_image(path))
        self.paths = self.lookup.paths

    def folders_for(self, source: str) -> list[str]:
        """Where the image of an XML file is looked for."""
        parts = list(PurePosixPath(source).parts[:-1])
        at = next((i for i, part in enumerate(parts) if part.lower() in ANNOTATIONS), None)
        inner = "/".join(parts if at is None else parts[at + 1 :])
        if self.folder is not None:
            return list(dict.fromkeys([joined(self.folder, inner), self.folder]))
        own = "/".join(parts)
        if at is None:
            return [own, *(joined(own, name) for name in IMAGES)]
        above = "/".join(parts[:at])
        beside = [joined(above, name) for name in IMAGES]
        return [*(joined(name, inner) for name in beside), *beside, own, above]

    def find(self, source: str) -> str | None:
        """The image of the XML file's name."""
        stem = PurePosixPath(source).stem
        found = (self.lookup.without_suffix(joined(folder, stem)) for folder in self.folders_for(source))
        return next((path for path in found if path is not None), None)

    def find_named(self, source: str, name: str) -> str | None:
        """The image that the XML file names, which may differ from the file's own name."""
        names = dict.fromkeys((plain_name(name), PurePosixPath(plain_name(name)).name))
        places = (joined(folder, each) for folder in self.folders_for(source) for each in names)
        return next((found for place in places if (found := self.lookup.find(place)) is not None), None)


def joined(folder: str, name: str) -> str:
    """A path in a folder; the root is blank."""
    return f"{folder}/{name}".strip("/")
