"""Which image file an annotation means, and in which folder names are to be looked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from data_catalog.files import NameLookup, plain_name
from data_catalog.split_names import known_split


@dataclass(frozen=True)
class Vote:
    """The folder under which most of the names are files, and how many of them. `rivals` are other folders
    that are as good, so that the choice is not clear.
    """

    folder: str
    found: int
    rivals: tuple[str, ...] = ()


class ImageLookup(NameLookup):
    """Image files under a root, as `walk` gave them, looked up by the names that annotations give them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)
        super().__init__(self.paths)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self.paths:
            found.setdefault(_stem(plain_name(path).rpartition("/")[2]), []).append(path)
        return found

    def ending_with(self, name: str) -> list[str]:
        """Files whose paths end with a name, which may hold folders."""
        plain = plain_name(name)
        same = self._by_stem.get(_stem(plain.rpartition("/")[2]), [])
        return [path for path in same if f"/{plain_name(path)}".endswith(f"/{plain}")]

    def called(self, stem: str) -> list[str]:
        """Files of a name without its suffix, in any folder."""
        return list(self._by_stem.get(plain_name(stem), []))

    def without_suffix(self, path: str) -> str | None:
        """The file of a path that lacks its suffix; None if it does not exist."""
        plain = plain_name(path)
        same = self._by_stem.get(plain.rpartition("/")[2], [])
        return next((each for each in reversed(same) if _stem(plain_name(each)) == plain), None)

    def within(self, folder: str) -> ImageLookup:
        """The files in a folder, at any depth."""
        inside = f"{folder}/"
        return self if not folder else ImageLookup(path for path in self.paths if path.startswith(inside))

    def vote(self, names: Sequence[str], prefer: Callable[[str], bool]) -> Vote | None:
        """The folder that the names are relative to; None when none of them is a file's.

        Of folders with as many of the names, that with more parts that are to be preferred is taken.
        """
        counted: Counter[str] = Counter()
        for name in names:
            depth = plain_name(name).count("/") + 1
            counted.update({"/".join(path.split("/")[:-depth]) for path in self.ending_with(name)})
        if not counted:
            return None
        score = {
            folder: (number, sum(prefer(part) for part in folder.split("/")))
            for folder, number in counted.items()
        }
        best = max(score.values())
        first, *rivals = sorted(folder for folder, each in score.items() if each == best)
        return Vote(first, counted[first], tuple(rivals))


class SplitImages:
    """The image files of one split, which lie in its folder as a rule, and elsewhere at times."""

    def __init__(self, images: ImageLookup, folder: str, split: str) -> None:
        """`images` are all that may be meant; those in a folder that another split is named by are not."""
        self.folder = folder
        self._images = ImageLookup(path for path in images.paths if _may_be_of(path, split))
        self.paths = self._images.paths
        self.called = self._images.called

    def find(self, name: str) -> str | None:
        """The file of that name in the folder, or else the only one elsewhere; None if neither exists."""
        found = self._images.find(self.usual(name))
        if found is not None:
            return found
        same = self._images.ending_with(name)
        return same[0] if len(same) == 1 else None

    def usual(self, name: str) -> str:
        """The path of a name in the folder, whether there is a file or not."""
        return f"{self.folder}/{plain_name(name)}".removeprefix("/")

    def elsewhere(self) -> str:
        """A digest of the files whose place or spelling decides on paths; blank when there are none."""
        inside = f"{self.folder}/" if self.folder else ""
        return names_digest(
            path
            for path in self.paths
            if not path.isascii() or not path.startswith(inside) or "/" in path.removeprefix(inside)
        )


def names_digest(paths: Iterable[str]) -> str:
    """SHA-256 of some paths; blank when there are none."""
    found = sorted(paths)
    return hashlib.sha256("\n".join(found).encode("utf-8", "surrogatepass")).hexdigest() if found else ""


def _stem(name: str) -> str:
    """A name without its suffix."""
    return name.rpartition(".")[0] or name


def _may_be_of(path: str, split: str) -> bool:
    said = {known_split(part) for part in path.split("/")[:-1]}
    return said <= {None} or split in said
