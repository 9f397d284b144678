"""`personsearch datasets export`: splits of ingested datasets for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import typer

from data_catalog.catalog import Catalog
from data_catalog.exchange.coco import export_coco, export_coco_folder
from data_catalog.exchange.parts import Exported, ExportPart, parts_of
from data_catalog.views import View
from flows.cli.json_file import Json, to_write, write_json
from flows.cli.new_folder import new_folder
from flows.cli.options import Store, chosen_store
from flows.cli.printing import print_snapshot
from flows.errors import ConfigError
from flows.plan.catalog import StoreSnapshots
from flows.wording import counted
from storage.durable import flush
from storage.opening import open_store

Layout = Literal["coco", "fiftyone", "yolo", "mot"]
Images = Literal["link", "copy", "none"]


def export(
    out: Path = typer.Argument(
        ..., metavar="OUT", help="New folder to write, or a .json file for one COCO JSON without images."
    ),
    view: list[str] = typer.Option(
        ..., help="NAME/SPLIT of an ingested dataset, or NAME for all of its splits; repeatable."
    ),
    layout: Layout = typer.Option("coco", "--format", help="Layout of the folder."),
    images: Images = typer.Option("link", help="What to do with the images of a folder."),
    store: Store = None,
    root: list[str] = typer.Option(
        [],
        help="Folder of the images, once per --view, in the same order (default: the folder last ingested); "
        "for a .json file, text to prepend to their paths.",
    ),
    json: Json = None,
) -> None:
    """Write splits of ingested datasets for other programs: COCO, FiftyOne, YOLO or MOT. Prints what is lost.

    Example: personsearch datasets export exported --store STORE --view prw --format yolo
    """
    if root and len(root) != len(view):
        raise ConfigError(f"give --root once per --view ({len(view)} here) or not at all; got {len(root)}")
    is_file = out.suffix.lower() == ".json"
    if is_file and layout != "coco":
        raise ConfigError(f"--format {layout}: OUT is a folder, not a .json file; got {out}")
    if is_file:
        to_write("OUT")(out)
    snapshots = StoreSnapshots(open_store(chosen_store(store)))
    views = _views(Catalog(snapshots), view, root or [""] * len(view))
    if is_file:
        prefixes = [given for _, given in views] if any(root) else None
        exported = export_coco([each for each, _ in views], out, roots=prefixes)
        flush(out)
        flush(out.absolute().parent)
    else:
        roots = [Path(given) if given else snapshots.root(each.snapshot.name) for each, given in views]
        parts = parts_of([each for each, _ in views], roots)
        with new_folder(out, "OUT") as folder:
            exported = _export_folder(layout, parts, folder, images)
    lost = {} if is_file else {"lost": dict(exported.lost)}
    write_json(json, {"images": exported.images, "boxes": exported.boxes, **lost})
    boxes = counted(exported.boxes, "box", "boxes")
    typer.echo(f"wrote {out}: {counted(exported.images, 'image')}, {boxes}")
    for what, count in sorted(exported.lost.items()):
        typer.echo(f"not held by {layout}: {count:,} {what}")


def _views(catalog: Catalog, texts: Sequence[str], roots: Sequence[str]) -> list[tuple[View, str]]:
    """The view of each split that --view names, with its --root."""
    found = []
    for text, root in zip(texts, roots, strict=True):
        dataset, _, split = text.rpartition("/")
        if not dataset:
            dataset, split = text, ""
        snapshot = print_snapshot(catalog, dataset)
        every = sorted(snapshot.table("images", ["split"])["split"].unique().to_pylist())
        if not every:
            raise ConfigError(f"--view {text}: it has no images")
        found += [(View(snapshot, each), root) for each in ([split] if split else every)]
    return found


def _export_folder(layout: Layout, parts: Sequence[ExportPart], folder: Path, images: Images) -> Exported:
    from data_catalog.exchange.mot import export_mot
    from data_catalog.exchange.yolo import export_yolo

    if layout == "yolo":
        return export_yolo(parts, folder, images)
    if layout == "mot":
        return export_mot(parts, folder, images)
    return export_coco_folder(parts, folder, images, layout=layout)


def croissant(
    name: str = typer.Argument(..., help="Name of the dataset in the catalog."),
    out: Path = typer.Argument(..., metavar="FOLDER", help="New folder to write."),
    license: list[str] = typer.Option([], help="URL of a licence, or its SPDX identifier; repeatable."),
    url: str | None = typer.Option(None, help="The dataset's page."),
    creator: list[str] = typer.Option([], help="A person who made the dataset; repeatable."),
    organization: list[str] = typer.Option([], help="An organization that made the dataset; repeatable."),
    store: Store = None,
) -> None:
    """Copy a dataset's tables to a folder with Croissant metadata; images stay where they are.

    Example: personsearch datasets croissant prw described --store STORE --url https://example.org/prw
    """
    from data_catalog.exchange.croissant import Publication, write_croissant

    snapshots = StoreSnapshots(open_store(chosen_store(store)))
    snapshot = print_snapshot(Catalog(snapshots), name)
    published = Publication(tuple(license), url, tuple(creator), tuple(organization))
    with new_folder(out, "FOLDER") as folder:
        created = snapshots.artifact(name).manifest.created
        described = write_croissant(snapshot, folder, created=created, published=published)
    typer.echo(f"wrote {counted(described.files, 'file')} to {out}")
    if described.missing:
        options = ", ".join(f"--{name}" for name in described.missing)
        typer.echo(f"croissant.json lacks what Croissant requires: give {options}")
