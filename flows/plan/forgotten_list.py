"""The list of a store: whom every ingest into it forgets. It holds salted hashes, and never a name.

A hash hides a name from a reader of the file. It does not hide it from a person who has the file and tries
all names: person ids are often small numbers.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_catalog.forgotten import NO_ONE, Forgotten, hashed
from flows.errors import ConfigError
from storage import durable
from storage.locks import exclusive
from storage.reading import first_problem, parse_json, read_regular

FILE = ".forgotten.json"
_SALT_BYTES = 16

_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _OfDataset(BaseModel):
    """Hashes: of person ids; of images' ids and paths; of the roots that the dataset was read from."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    people: tuple[_Hash, ...] = ()
    images: tuple[_Hash, ...] = ()
    roots: tuple[_Hash, ...] = ()


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    format: Literal[1] = 1
    salt: Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$")]
    datasets: dict[str, _OfDataset] = {}


class ForgottenList:
    """The list beside a store's artifacts; a store in which no one was forgotten has none."""

    def __init__(self, store_root: Path) -> None:
        self.path = store_root / FILE

    def of(self, dataset: str, root: Path | None) -> Forgotten:
        """Whom an ingest of a dataset forgets: those of its name, and those of its root under any name.

        Raises ConfigError when the list is damaged, since it is not known then who must not come back.
        """
        content = self._read()
        if content is None:
            return NO_ONE
        known_root = None if root is None else _root_hash(content.salt, root)
        parts = [
            part for name, part in content.datasets.items() if name == dataset or known_root in part.roots
        ]
        people = frozenset(each for part in parts for each in part.people)
        images = frozenset(each for part in parts for each in part.images)
        return Forgotten(content.salt, people, images) if people or images else NO_ONE

    def add(
        self, dataset: str, *, people: Collection[str], images: Collection[str], root: Path | None
    ) -> Forgotten:
        """Put people (`person_id`) and images (`image_id` and `rel_path`) on the list, durably.

        Returns whom an ingest of the dataset forgets from now on. What is on the list already stays.
        """
        durable.make_folder(self.path.parent)
        with exclusive(self.path.with_name(f"{FILE}.lock"), what=str(self.path)):
            content = self._read() or _Content(salt=secrets.token_hex(_SALT_BYTES))
            salt, old = content.salt, content.datasets.get(dataset, _OfDataset())
            part = _OfDataset(
                people=_joined(old.people, (hashed(salt, "person", each) for each in people)),
                images=_joined(old.images, (hashed(salt, "image", each) for each in images)),
                roots=_joined(old.roots, () if root is None else (_root_hash(salt, root),)),
            )
            if part != old:
                datasets = {**content.datasets, dataset: part}
                durable.write(self.path, content.model_copy(update={"datasets": datasets}).model_dump_json())
        return self.of(dataset, root)

    def _read(self) -> _Content | None:
        try:
            return _Content.model_validate(parse_json(read_regular(self.path)))
        except FileNotFoundError:
            return None
        except (ValidationError, ValueError) as error:
            why = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise ConfigError(
                f"{self.path} is damaged: {why}. It lists whom no ingest may bring back: restore it from a "
                "backup, or delete it and run `personsearch forget` again for each of them"
            ) from error


def _joined(old: Iterable[str], new: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*old, *new}))


def _root_hash(salt: str, root: Path) -> str:
    return hashed(salt, "root", str(root.resolve()))
