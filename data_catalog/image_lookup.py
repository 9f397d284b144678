"""Which image file an annotation means, and in which folder names are to be looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from data_catalog.files import NameLookup, plain_name


@dataclass(frozen=True)
class Vote:
    """The folder under which most of the names are files, and how many of them. `rivals` are other folders
    that are as good, so that the choice is not clear.
    """

    folder: str
    found: int
    rivals: tuple[str, ...] = ()


class ImageLookup:
    """Image files under a root, as `walk` gave them, looked up by the names that annotations give them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)
        self._names = NameLookup(self.paths)
        self._by_last: dict[str, list[str]] | None = None

    def find(self, path: str) -> str | None:
        """The file's path as it is on the disk; None when there is no file of that name."""
        return self._names.find(path)

    def ending_with(self, name: str) -> list[str]:
        """Files whose paths end with a name, which may hold folders."""
        if self._by_last is None:
            self._by_last = {}
            for path in self.paths:
                self._by_last.setdefault(plain_name(path).rpartition("/")[2], []).append(path)
        plain = plain_name(name)
        same = self._by_last.get(plain.rpartition("/")[2], [])
        return [path for path in same if f"/{plain_name(path)}".endswith(f"/{plain}")]

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
