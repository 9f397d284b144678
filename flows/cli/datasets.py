"""`personsearch datasets`: check datasets, ingest them, inspect them, and add your own."""

from __future__ import annotations

import inspect
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from data_catalog.adapters import adapter_names, load_adapter
from data_catalog.adapters.protocol import COMMON_OPTIONS
from data_catalog.catalog import Catalog
from data_catalog.counts import nested
from data_catalog.decode_checks import faults_in_short, memory_of, undecodable_images, undecodable_rejects
from data_catalog.errors import CatalogError, UnknownImage
from data_catalog.image_ids import find_images
from data_catalog.ingest import refuse_invalid
from data_catalog.layouts import fitting_adapter
from data_catalog.outcome import refuse_outcome
from data_catalog.skeleton import write_skeleton
from data_catalog.snapshot import Snapshot, counts_found, image_digests, ingest_findings
from data_catalog.statistics import statistics
from data_catalog.validation import damaged_rows, published_findings
from flows.cli.check import check
from flows.cli.datasets_export import croissant, export
from flows.cli.json_file import Json, to_write, write_json
from flows.cli.options import EXAMPLES, Store, argument, chosen_store, parse_options, parse_rules
from flows.cli.printing import print_counts, print_snapshot, print_table
from flows.errors import ConfigError, missing
from flows.plan.catalog import StoreSnapshots, open_catalog
from flows.provenance import made_by
from flows.stages import ingest as ingest_stage
from flows.wording import counted
from storage.manifest import Identity
from storage.opening import open_store
from storage.store import Artifact
from storage.store import Store as ArtifactStore

app = typer.Typer(no_args_is_help=True, help="Datasets: check, ingest, inspect and export them.")

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@app.command("list")
def list_adapters() -> None:
    """List the supported formats and their options.

    Example: personsearch datasets list
    """
    for name in adapter_names():
        try:
            adapter = load_adapter(name)
        except CatalogError as error:
            typer.echo(f"{name:18} {error}")
            continue
        typer.echo(f"{name:18} {_summary(adapter)}")
        for option, meaning in adapter.options.items():
            typer.echo(f"{'':20} {option}: {meaning}")
    typer.echo("Options of every format:")
    for option, meaning in COMMON_OPTIONS.items():
        typer.echo(f"{'':20} {option}: {meaning}")


OldName = Annotated[str | None, typer.Option("--name", hidden=True, help="The argument NAME.")]
OldRoot = Annotated[Path | None, typer.Option("--root", hidden=True, help="The argument ROOT.")]
Name = Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the dataset in the catalog.")]


@app.command()
def ingest(
    root: Annotated[
        Path | None,
        typer.Argument(metavar="ROOT", help="Folder of the dataset, as its authors publish it."),
    ] = None,
    adapter: str | None = typer.Option(None, help="Format, as named by `datasets list` (default: detected)."),
    root_option: OldRoot = None,
    store: Store = None,
    name: str | None = typer.Option(
        None, help="Name of the dataset in the catalog (default: the adapter's name)."
    ),
    option: list[str] = typer.Option([], help="key=value for the adapter; repeatable."),
    queries: str | None = typer.Option(
        None, help=f"Draw queries by a rule, as in a config: {EXAMPLES['queries']}."
    ),
    splits: str | None = typer.Option(
        None, help=f"Split the images by a rule, as in a config: {EXAMPLES['splits']}."
    ),
    no_images: bool = typer.Option(
        False, "--no-images", help="Read annotations only; the snapshot cannot be used for training."
    ),
    check_images: bool = typer.Option(
        True,
        "--check-images/--no-check-images",
        help="Decode every image; images that were checked before are skipped.",
    ),
    allow_empty: bool = typer.Option(
        False,
        "--allow-empty",
        help="Accept a root without images, and splits without boxes or with mostly damaged rows.",
    ),
    strict: bool = typer.Option(False, "--strict", help="Fail if any row is damaged."),
    rehash: bool = typer.Option(
        False, "--rehash", help="Re-read every file even if its size and modification time are unchanged."
    ),
    dask: str | None = typer.Option(None, help="Dask scheduler, such as tcp://host:8786."),
    json: Json = None,
) -> None:
    """Read a dataset into a snapshot of validated Parquet tables; unchanged data is not read again.

    Example: personsearch datasets ingest ROOT --store STORE
    """
    started = time.monotonic()
    root = argument(root, root_option, "--root", "datasets ingest ROOT")
    artifacts = open_store(chosen_store(store))
    options = parse_options(option)
    if adapter is None:
        adapter = fitting_adapter(root, options)
    stage = ingest_stage.root_stage(
        name or adapter,
        adapter,
        root,
        options=options,
        rules=parse_rules(queries, splits),
        store=artifacts.root,
        dask=dask,
        read_images=not no_images,
        allow_empty=allow_empty,
        rehash=rehash,
    )
    identity = ingest_stage.identity(stage)
    found = artifacts.find(stage.kind, identity.key)
    typer.echo(f"{stage.recipe['dataset']}: format: {adapter}")
    artifact = found or _make(artifacts, identity, stage.options, strict=strict)
    snapshot = Snapshot(artifact.path)
    if not allow_empty:
        refuse_outcome(snapshot)
    if strict:
        refuse_invalid(snapshot)
    StoreSnapshots(artifacts).remember(str(identity.recipe["dataset"]), artifact.key, root)
    counts = counts_found(snapshot)
    result = {
        **nested(counts),
        "path": str(artifact.path),
        "cached": found is not None,
        "seconds": artifact.manifest.seconds,
        "wall_seconds": time.monotonic() - started,
    }
    write_json(json, result)
    print_counts(counts)
    for finding in (*ingest_findings(snapshot), *damaged_rows(snapshot)):
        typer.echo(f"{finding.level}: {finding.message}")
    typer.echo(f"{'cached' if found else 'built'} in {result['wall_seconds']:.2f} s: {artifact.path}")
    if check_images:
        _refuse_undecodable(snapshot, root, artifacts)


app.command()(check)


@app.command()
def stats(
    name: Name = None,
    store: Store = None,
    name_option: OldName = None,
    html: Path | None = typer.Option(
        None, callback=to_write("--html"), help="Also write the figures to this file, a self-contained page."
    ),
    root: Path | None = typer.Option(
        None, help="Root folder of the dataset, for pictures on the page (default: the folder last ingested)."
    ),
) -> None:
    """Print statistics of an ingested dataset, or write them as a page of figures.

    Example: personsearch datasets stats prw --store STORE --html stats.html
    """
    name = argument(name, name_option, "--name", "datasets stats NAME")
    if root is not None and not root.is_dir():
        raise ConfigError(f"--root: {missing(root, 'folder')}")
    snapshots = StoreSnapshots(open_store(chosen_store(store)))
    found = statistics(print_snapshot(Catalog(snapshots), name))
    print_table(found.counts)
    for finding in published_findings(found.published):
        typer.echo(f"{finding.level}: {finding.message}")
    for histogram in found.histograms:
        bars = "  ".join(f"{label}: {count:,}" for label, count in histogram.rows())
        typer.echo(f"{histogram.title} ({histogram.unit}: {histogram.what}): {bars}")
    if html is not None:
        from flows.report.statistics_page import render_statistics

        page = render_statistics(found, snapshots.artifact(name), root or snapshots.root(name))
        html.write_text(page, encoding="utf-8")
        typer.echo(f"wrote {html}")


@app.command()
def rejects(
    name: Name = None,
    store: Store = None,
    name_option: OldName = None,
    out: Path | None = typer.Option(
        None, callback=to_write("--out"), help="CSV file to write (default: print the rows)."
    ),
) -> None:
    """List every source row that was rejected, as CSV: its file, its row number and the reason.

    Example: personsearch datasets rejects prw --store STORE --out rejects.csv
    """
    name = argument(name, name_option, "--name", "datasets rejects NAME")
    found = open_catalog(chosen_store(store))[name].table("rejects")
    text = found.to_pandas().to_csv(index=False)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {counted(len(found), 'row')} to {out}")


@app.command()
def images(
    name: str = typer.Argument(..., metavar="NAME", help="Name of the dataset in the catalog."),
    store: Store = None,
    split: str | None = typer.Option(None, help="List only images of this split."),
    like: str | None = typer.Option(
        None, metavar="TEXT", help="List only ids that contain TEXT, or match it if it has * or ?."
    ),
    json_file: Json = None,
) -> None:
    """List the image ids of a dataset, one per line, as `datasets show` takes them.

    Example: personsearch datasets images prw --store STORE --split test --like c1s1
    """
    found = find_images(open_catalog(chosen_store(store))[name].snapshot, split, like)
    write_json(json_file, found.to_pylist())
    for image_id in found["image_id"].to_pylist():
        typer.echo(image_id)
    if json_file is None and not len(found):
        typer.echo(f"{name}: no image id matches", err=True)


@app.command()
def show(
    name: Name = None,
    image_id: Annotated[
        str | None, typer.Argument(metavar="IMAGE_ID", help="Image id; `datasets images` lists them.")
    ] = None,
    store: Store = None,
    name_option: OldName = None,
    root: Path = typer.Option(..., help="Root folder of the dataset."),
    out: Path = typer.Option(Path("shown.png"), callback=to_write("--out"), help="Image file to write."),
) -> None:
    """Draw an image with its boxes, identities and ignore regions.

    Example: personsearch datasets show prw c1s1_000151.jpg --store STORE --root ROOT
    """
    from data_catalog.drawing import draw_image

    usage = "datasets show NAME IMAGE_ID"
    if name_option is not None and image_id is None:
        name, image_id = None, name  # as it used to be called: the image alone is an argument
    name = argument(name, name_option, "--name", usage)
    image_id = argument(image_id, None, "IMAGE_ID", usage)
    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out {out}: the file name must end with one of {', '.join(PICTURES)}")
    place = chosen_store(store)
    try:
        picture = draw_image(print_snapshot(open_catalog(place), name), image_id, root)
    except UnknownImage as error:
        listing = shlex.join(["personsearch", "datasets", "images", name, "--store", place])
        raise ConfigError(f"{error} (all: {listing})") from error
    picture.save(out)
    typer.echo(f"wrote {out}")


app.command()(export)
app.command()(croissant)


@app.command()
def new(
    name: str = typer.Argument(
        ..., metavar="NAME", help="Name of the adapter: lower-case letters, digits and '-'."
    ),
    folder: Path | None = typer.Option(None, help="Folder of the new package (default: NAME)."),
) -> None:
    """Write a package with a working adapter and a test, as a starting point.

    Example: personsearch datasets new street-cams
    """
    target = folder or Path(name)
    for path in write_skeleton(target, name):
        typer.echo(f"wrote {path}")
    typer.echo(f"next: pip install -e {target}; then personsearch datasets check ROOT --adapter {name}")


def _summary(adapter: object) -> str:
    """The first paragraph of an adapter's docstring, on one line."""
    paragraph, _, _ = inspect.cleandoc(type(adapter).__doc__ or "").partition("\n\n")
    return " ".join(paragraph.split())


def _refuse_undecodable(snapshot: Snapshot, root: Path, store: ArtifactStore) -> None:
    faults = undecodable_images(root, image_digests(snapshot.table("images")), memory_of(store.root))
    faults |= undecodable_rejects(root, snapshot)
    if faults:
        raise CatalogError(
            f"{counted(len(faults), 'image')} cannot be decoded: {faults_in_short(faults)}. Replace them, or "
            "exclude them with --option leave_out=PATTERN"
        )


def _make(store: ArtifactStore, identity: Identity, options: Any, *, strict: bool) -> Artifact:
    with store.making(identity) as work:
        if work.made is not None:
            return work.made
        recipe = ingest_stage.IngestRecipe.model_validate(identity.recipe)
        made = ingest_stage.read_root(recipe, ingest_stage.Options.model_validate(options), work.path)
        if strict:
            refuse_invalid(Snapshot(work.path))
        return work.commit(made.content_digest, metrics=made.metrics, made_by=made_by(None))
