"""What an export is made of: views with the places of their images, and what it says when it is done."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from filecmp import cmp
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.files import path_fault
from data_catalog.views import View

ImagesMode = Literal["link", "copy", "none"]
"""Symbolic links to the images, copies of them, or annotations alone."""

NEVER = frozenset(
    {"dataset", "image_id", "rel_path", "split", "n_boxes", "width", "height", "sha256", "decoding"}
    | {"stated_width", "stated_height", "source_unit", "source_file", "source_row"}
    | {"box_id", "person_scope", "visible_y1", "visible_x2", "visible_y2"}
)
"""Columns that no loss is counted for: every layout has them in its own way, they go with another column, or
they tell of the source's files, where an ingest of the export tells of its own."""


@dataclass(frozen=True)
class ExportPart:
    """One split of one dataset. `prefix` is put before its names and identities, so that those of different
    datasets stay apart: `prw/`, or blank for a dataset alone. `root` holds its images.
    """

    view: View
    prefix: str = ""
    root: Path | None = None

    @property
    def split(self) -> str:
        """The split's name, checked: it becomes the name of a folder or of a file.

        Raises:
            CatalogError: when it cannot be one.
        """
        name = self.view.split
        if path_fault(name) or "/" in name or name.startswith("."):
            raise CatalogError(f"{self.view.snapshot.name}: split {name!r} cannot be the name of a folder")
        return name

    def rel_paths(self) -> list[str]:
        """The path of each image in the export, below its images' folder.

        Raises:
            CatalogError: when one would leave that folder.
        """
        paths = [f"{self.prefix}{path}" for path in self.view.images["rel_path"].to_pylist()]
        for path in paths:
            if fault := path_fault(path):
                raise CatalogError(
                    f"{self.view.snapshot.name}: image {path!r}: {fault}; it cannot be exported"
                )
        return paths


@dataclass(frozen=True)
class Exported:
    """How much was written, and what the layout could not hold: counts by what it was."""

    images: int
    boxes: int
    lost: Mapping[str, int] = field(default_factory=dict)


def parts_of(views: Sequence[View], roots: Sequence[Path | None]) -> list[ExportPart]:
    """The parts of an export; their names carry the dataset's where there are several.

    Raises:
        CatalogError: when a split is given twice.
    """
    names = [(view.snapshot.name, view.split) for view in views]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise CatalogError(f"{'/'.join(twice)} is given twice: name each split once")
    several = len({name for name, _ in names}) > 1
    return [
        ExportPart(view, f"{view.snapshot.name}/" if several else "", root)
        for view, root in zip(views, roots, strict=True)
    ]


def export_parts(
    parts: Sequence[ExportPart],
    held: frozenset[str],
    write: Callable[[ExportPart], tuple[int, Mapping[str, int]]],
) -> Exported:
    """Write part by part, and sum up what was written and lost.

    Parameters
    ----------
    parts
        What is exported.
    held
        Columns of the catalog that the layout holds.
    write
        Writes a part; gives its number of boxes, and counts of what else the layout cannot hold of it.
    """
    boxes, lost = 0, Counter[str]()
    for part in parts:
        written, of_part = write(part)
        boxes += written
        lost.update(of_part)
        lost.update(lost_columns(part, held))
    return Exported(sum(len(part.view.images) for part in parts), boxes, +lost)


def place_images(part: ExportPart, targets: Sequence[Path], how: ImagesMode) -> None:
    """Link or copy the images of a part to its targets, in the order of the view.

    Raises:
        CatalogError: when an image is missing or cannot be written.
    """
    if how == "none":
        return
    name = part.view.snapshot.name
    if part.root is None:
        raise CatalogError(
            f"{name}: where its images lie is not known on this machine: name its root, or leave images out"
        )
    root = part.root.absolute()
    for rel_path, target in zip(part.view.images["rel_path"].to_pylist(), targets, strict=True):
        source = root / rel_path
        if not source.is_file():
            raise CatalogError(f"{name}: image {source} does not exist; name the root that holds it")
        if target.exists():
            if cmp(source, target, shallow=False):
                continue  # two images of the dataset are one file
            raise CatalogError(f"{target}: two images would have this name in the export")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if how == "link":
                target.symlink_to(source)
            else:
                shutil.copyfile(source, target)
        except OSError as error:
            raise CatalogError(f"{target}: cannot be written: {error.strerror}") from error


def write_text(path: Path, lines: Iterable[str], mode: Literal["x", "a"] = "x") -> None:
    """Write lines to a new file of the export, or add them to one.

    Raises:
        CatalogError: when it cannot be written, or something else of the export has its name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except FileExistsError as error:
        raise CatalogError(f"{path}: two parts of the export would have this name") from error
    except OSError as error:
        raise CatalogError(f"{path}: cannot be written: {error.strerror}") from error


def batches_of(table: pa.Table, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """The table's rows as mappings, a batch at a time."""
    for batch in table.select(list(columns)).to_batches(max_chunksize=16_384):
        yield batch.to_pylist()


def rows_of(table: pa.Table, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The same, one by one."""
    return chain.from_iterable(batches_of(table, columns))


def lost_columns(part: ExportPart, held: frozenset[str]) -> dict[str, int]:
    """How many values of columns that a layout does not hold are lost, by `table.column`.

    `held` are columns that it holds. A category `person` and a flag that is not set lose nothing.
    """
    lost = {
        f"{name}.{column}": _told(column, table[column])
        for name, table in (("images", part.view.images), ("boxes", part.view.boxes))
        for column in table.column_names
        if column not in NEVER and column not in held
    }
    queries = part.view.snapshot.table("queries", ["image_id"])
    asked = pc.is_in(queries["image_id"], value_set=part.view.images["image_id"])
    return {**lost, "queries, with their galleries": pc.sum(asked).as_py() or 0}


def _told(column: str, values: pa.ChunkedArray) -> int:
    """How many of the values say something that their absence would not."""
    if column == "category":
        said = pc.not_equal(values.cast(pa.string()), "person")
    elif column == "ignore":
        said = values
    else:
        said = pc.is_valid(values)
    return int(pc.sum(said).as_py() or 0)
