"""Whom a removal is about: people and images of one dataset, by name for as long as the command runs."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from data_catalog.forgotten import Forgotten, hashed
from flows.errors import ConfigError


@dataclass(frozen=True)
class Subject:
    """People (`person_id`) and images (`image_id`) of a dataset that are to be forgotten."""

    dataset: str
    people: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    _salt: str = field(default_factory=lambda: secrets.token_hex(16), repr=False, compare=False)

    @property
    def as_forgotten(self) -> Forgotten:
        """As an ingest would take it, without a list: to look for them in tables."""
        return Forgotten(
            self._salt,
            frozenset(hashed(self._salt, "person", each) for each in self.people),
            frozenset(hashed(self._salt, "image", each) for each in self.images),
        )

    def words(self) -> Iterator[str]:
        """As the command line names them."""
        for each in sorted(self.people):
            yield f"person {self.dataset}/{each}"
        for each in sorted(self.images):
            yield f"image {self.dataset}/{each}"


def subjects_of(people: Iterable[str], images: Iterable[str]) -> list[Subject]:
    """The subjects that `--person` and `--image` name, one per dataset.

    Raises ConfigError when no one is named, or a name is not DATASET/NAME.
    """
    named: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for at, (option, texts) in enumerate((("--person", people), ("--image", images))):
        for text in texts:
            dataset, slash, name = text.partition("/")
            if not (dataset and slash and name):
                what = ("ID", "IMAGE")[at]
                raise ConfigError(f"{option} {text}: write it as DATASET/{what}")
            named[dataset][at].add(name)
    if not named:
        raise ConfigError("name whom to forget: --person DATASET/ID or --image DATASET/IMAGE; both repeat")
    return [
        Subject(dataset, frozenset(who), frozenset(which)) for dataset, (who, which) in sorted(named.items())
    ]
