"""What an adapter is, and how one is found by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol, runtime_checkable

from data_catalog.errors import CatalogError
from data_catalog.rows import Rows
from data_catalog.suggestions import did_you_mean

ENTRY_POINTS = "personsearch.datasets"

Options = Mapping[str, str]

APPLY, IGNORE = "apply", "ignore"
COMMON_OPTIONS: Options = {
    "leave_out": "images to leave out, with their boxes: comma-separated patterns of their paths",
    "exif": f"{APPLY} (default): images are turned as their EXIF orientation says, as a viewer shows them; "
    f"{IGNORE}: boxes refer to the images as they are stored",
}
"""Options that every dataset has with any adapter."""


@dataclass(frozen=True)
class Unit:
    """What is read at once: one annotation file. A unit whose files did not change is not read again.

    Parameters
    ----------
    source
        The annotation file, relative to the root, with '/'; also the unit's name, which no other unit has.
    split
        The split of its rows.
    images
        Image files that its rows depend on and that are known without reading it.
    also
        Further annotation files that are opened to read it.
    parameters
        Whatever else its rows depend on, such as the folder in which its images were found.
    has_file
        Whether `source` is a file; where names alone say everything it is the images' folder.
    annotated
        Whether its images are annotated at all; those of a test split are published without ground truth.

    Examples
    --------
    >>> Unit("val.csv", "val", images=("images/a.jpg",)).annotated
    True
    """

    source: str
    split: str = "train"
    images: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    has_file: bool = True
    annotated: bool = True


@dataclass(frozen=True)
class Layout:
    """What an adapter found under a root.

    Parameters
    ----------
    units
        What is to be read.
    shared
        Files that the number of units or their parameters depend on, such as lists of splits.
    images
        Image files that only reading a unit assigns to it.
    edition, licence
        Of the dataset, if known.
    expected
        Counts that the sources state for this edition, named as the ingest names them.
    notes
        Sentences on how the files were understood, reported as findings.
    other
        fnmatch patterns over whole paths: files that belong to the format and are not read. Any other file
        that no row comes from is reported as left over.

    Examples
    --------
    >>> Layout((Unit("boxes.csv"),), expected={"boxes": 3}).units[0].split
    'train'
    """

    units: tuple[Unit, ...]
    shared: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    edition: str | None = None
    licence: str | None = None
    expected: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


@runtime_checkable
class Adapter(Protocol):
    """A dataset's native format. `version` is raised when the same files give other rows.

    It may have an attribute `published`, a tuple of `published.Published`: totals to compare the counts with;
    `needs_images`, True where boxes depend on the images' sizes, so that images cannot be left out; `marks`,
    names of files and folders, or kinds of annotation files, that tell the format (`gt.txt`, `json`); and
    `protocol_files`, the file that holds the queries of each protocol, to name it where it is missing.
    """

    name: str
    version: int
    options: Mapping[str, str]
    """Options that it knows, each with its meaning."""

    def discover(self, root: Path, options: Options) -> Layout:
        """Find the annotation files; raise CatalogError where this is not the format."""
        ...

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        """Read one unit; a long file may be yielded in parts, images before their boxes."""
        ...


def adapter_names() -> list[str]:
    """List the installed adapters.

    Returns
    -------
    list of str
        Their names, sorted.

    Examples
    --------
    >>> "prw" in adapter_names()
    True
    """
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def load_adapter(name: str) -> Adapter:
    """Load an adapter.

    Parameters
    ----------
    name
        Its name among the entry points `personsearch.datasets`.

    Returns
    -------
    Adapter
        An instance of it.

    Raises
    ------
    CatalogError
        If no adapter or more than one is installed under that name, or it cannot be loaded or is incomplete.

    Examples
    --------
    >>> [unit.source for unit in load_adapter("prw").discover(root, {}).units][-1]
    'query_info.txt'
    """
    points: set[EntryPoint] = set(entry_points(group=ENTRY_POINTS, name=name))
    if not points:
        names = adapter_names()
        raise CatalogError(
            f"unknown adapter {name!r}; known are: {', '.join(names)}{did_you_mean(name, names)}"
        )
    if len({point.value for point in points}) > 1:
        owners = ", ".join(sorted(point.value for point in points))
        raise CatalogError(f"adapter {name!r} is offered more than once: {owners}; uninstall all but one")
    point = points.pop()
    try:
        loaded = point.load()
        adapter = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # third-party code may raise anything when it is imported
        raise CatalogError(
            f"adapter {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(adapter, Adapter) or not isinstance(adapter.options, Mapping):
        raise CatalogError(
            f"adapter {name!r} ({point.value}) is incomplete: it needs name, version, options (a mapping), "
            "discover and read"
        )
    return adapter


def check_options(adapter: Adapter, options: Options) -> None:
    """Raise CatalogError for an option that neither the adapter nor every dataset has."""
    known = {**COMMON_OPTIONS, **adapter.options}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise CatalogError(
            f"adapter {adapter.name!r} has no option {unknown[0]!r}; it has: {', '.join(sorted(known))}"
            f"{did_you_mean(unknown[0], known)}"
        )
    if options.get("exif", APPLY) not in (APPLY, IGNORE):
        raise CatalogError(f"option exif={options['exif']!r}: choose {APPLY} or {IGNORE}")
