"""Options that adapters share: folders, names of classes, keys of identities, one of a few words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from data_catalog.adapters.protocol import Options
from data_catalog.errors import CatalogError
from data_catalog.files import path_fault
from data_catalog.ids import whole
from data_catalog.schema import SCOPE_DATASET, SCOPE_SEQUENCE

PEOPLE = "person,pedestrian,people"
"""Names of classes that are people, in any case, unless an option gives others."""


def folder_option(options: Options, name: str, default: str) -> str:
    """The folder that an option names, relative to the root, without '/' at its end; the root itself is
    blank.

    Raises:
        CatalogError: when it is not inside the root.
    """
    given = options.get(name, default).strip()
    folder = PurePosixPath(given.replace("\\", "/")).as_posix()
    if folder == ".":
        return ""
    if fault := path_fault(folder):
        raise CatalogError(f"option {name}={given!r}: {fault}; give a folder inside the root")
    return folder


def choice_option(options: Options, name: str, default: str, *others: str) -> str:
    """The one of a few words that an option gives.

    Raises:
        CatalogError: when it gives another.
    """
    given = options.get(name, default)
    if given not in (default, *others):
        raise CatalogError(f"option {name}={given!r}: choose {' or '.join((default, *others))}")
    return given


def first_pixel_option(options: Options) -> int:
    """What `first_pixel` gives: the number of the first pixel, 1 by default or 0."""
    return int(choice_option(options, "first_pixel", "1", "0"))


def classes_option(text: str, names: Mapping[int, str]) -> frozenset[int]:
    """The classes that the option `classes` gives, by number or by name.

    Raises:
        CatalogError: when one is neither.
    """
    by_name = {plain(name): kind for kind, name in names.items()}
    chosen = set()
    for part in (part.strip() for part in text.split(",")):
        try:
            chosen.add(by_name[plain(part)] if plain(part) in by_name else whole(part))
        except ValueError as error:
            known = f", or names among {', '.join(names.values())}" if names else ""
            raise CatalogError(f"option classes={text!r}: give numbers such as 0,1{known}") from error
    return frozenset(chosen)


def identity_option(options: Options) -> tuple[str | None, str]:
    """The key of identities that `person_id` or `track_id` names, and the scope in which these hold.

    Raises:
        CatalogError: when both are given.
    """
    person, track = options.get("person_id"), options.get("track_id")
    if person and track:
        raise CatalogError("options person_id and track_id: give one of them")
    return (person, SCOPE_DATASET) if person else (track or None, SCOPE_SEQUENCE)


def names_option(options: Options, name: str, default: str) -> frozenset[str]:
    """Names, separated by commas, as `plain` writes them."""
    return frozenset(plain(part) for part in options.get(name, default).split(",") if part.strip())


def plain(name: str) -> str:
    """A class's name as it is compared: in any case."""
    return name.strip().casefold()


def is_person(name: str) -> bool:
    """Whether a class's name means people."""
    return plain(name) in PEOPLE.split(",")
