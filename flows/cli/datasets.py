"""`personsearch datasets`: look at datasets, ingest them, and add one's own."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

import typer

from data_catalog.adapters import adapter_names, load_adapter
from data_catalog.adapters.protocol import COMMON_OPTIONS
from data_catalog.catalog import Catalog
from data_catalog.counts import nested
from data_catalog.decode_checks import memory_of, undecodable_images, undecodable_rejects
from data_catalog.errors import CatalogError
from data_catalog.ingest import ImageUse, refuse_invalid
from data_catalog.layouts import fitting_adapter
from data_catalog.outcome import refuse_outcome
from data_catalog.rule_notes import rule_notes
from data_catalog.snapshot import Snapshot, counts_found, image_digests, ingest_findings
from data_catalog.validation import damaged_rows
from flows.cli.check import check
from flows.cli.json_file import Json, write_json
from flows.cli.options import EXAMPLES, Store, chosen_store, parse_options, parse_rules
from flows.cli.printing import print_counts, print_table
from flows.errors import ConfigError
from flows.plan.catalog import StoreSnapshots, open_catalog
from flows.run.provenance import made_by
from flows.stages import ingest as ingest_stage
from flows.stages.base import StageContext
from storage.manifest import Identity
from storage.opening import open_store
from storage.store import Artifact
from storage.store import Store as ArtifactStore

app = typer.Typer(no_args_is_help=True, help="Datasets in their native formats, and the catalog of them.")

Options = list[str]
SHOWN = 3
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@app.command("list")
def list_adapters() -> None:
    """The formats that can be read, with their options."""
    for name in adapter_names():
        try:
            adapter = load_adapter(name)
        except CatalogError as error:
            typer.echo(f"{name:18} {error}")
            continue
        typer.echo(f"{name:18} {_summary(adapter)}")
        for option, meaning in adapter.options.items():
            typer.echo(f"{'':20} {option}: {meaning}")
    typer.echo("Every format has these options, too:")
    for option, meaning in COMMON_OPTIONS.items():
        typer.echo(f"{'':20} {option}: {meaning}")


@app.command()
def ingest(
    adapter: str | None = typer.Option(
        None, help="Name of the format, as `datasets list` gives it; by default the one that fits."
    ),
    root: Path = typer.Option(..., help="The dataset as its authors publish it."),
    store: Store = None,
    name: str | None = typer.Option(
        None, help="The dataset's name in the catalog; the adapter's by default."
    ),
    option: Options = typer.Option([], help="key=value for the adapter; may be repeated."),
    queries: str | None = typer.Option(
        None, help=f"Draw queries from the identities, by a rule as in a config: {EXAMPLES['queries']}."
    ),
    splits: str | None = typer.Option(
        None, help=f"Split the images by a rule as in a config: {EXAMPLES['splits']}."
    ),
    no_images: bool = typer.Option(
        False, "--no-images", help="Read annotations alone; such a snapshot cannot train."
    ),
    check_images: bool = typer.Option(
        True,
        "--check-images/--no-check-images",
        help="Decode every image once; an image that was decoded before is not opened again.",
    ),
    allow_empty: bool = typer.Option(
        False,
        "--allow-empty",
        help="Accept a root without images, a split without boxes, or one that is mostly damaged.",
    ),
    strict: bool = typer.Option(False, "--strict", help="Fail when any row is damaged."),
    rehash: bool = typer.Option(False, "--rehash", help="Read every file again, whatever its date says."),
    dask: str | None = typer.Option(None, help="Address of a Dask scheduler, such as tcp://host:8786."),
    json: Json = None,
) -> None:
    """Read a dataset into a snapshot: validated Parquet tables, made once for one content of the root."""
    started = time.monotonic()
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
        use=ImageUse(read=not no_images),
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
    StoreSnapshots(artifacts).remember(str(identity.recipe["dataset"]), artifact.key)
    result = {
        **nested(counts_found(snapshot)),
        "path": str(artifact.path),
        "cached": found is not None,
        "seconds": artifact.manifest.seconds,
        "wall_seconds": time.monotonic() - started,
    }
    write_json(json, result)
    print_counts(counts_found(snapshot))
    for finding in (*ingest_findings(snapshot), *damaged_rows(snapshot)):
        typer.echo(f"{finding.level}: {finding.message}")
    typer.echo(f"{'cached' if found else 'made'} in {result['wall_seconds']:.2f} s: {artifact.path}")
    if check_images:
        _refuse_undecodable(snapshot, root, artifacts)


app.command()(check)


@app.command()
def stats(
    store: Store = None,
    name: str = typer.Option(..., help="The dataset's name in the catalog."),
    html: Path | None = typer.Option(
        None, help="Write figures to this file, one page that needs nothing else."
    ),
) -> None:
    """Statistics of an ingested dataset, as a table and as figures."""
    from data_catalog.statistics import statistics, statistics_page

    found = statistics(_snapshot(open_catalog(chosen_store(store)), name))
    print_table(found.counts)
    for each in found.published:
        typer.echo(f"{each.source}: {each}")
    for histogram in found.histograms:
        bars = zip(histogram.labels(), histogram.counts, strict=True)
        typer.echo(f"{histogram.title}: " + "  ".join(f"{label}: {count:,}" for label, count in bars))
    if html is not None:
        html.write_text(statistics_page(found), encoding="utf-8")
        typer.echo(f"written: {html}")


@app.command()
def rejects(
    store: Store = None,
    name: str = typer.Option(..., help="The dataset's name in the catalog."),
    out: Path | None = typer.Option(None, help="A CSV file to write; by default the rows are printed."),
) -> None:
    """Every row of the sources that was not taken: its file, its row, and why. As CSV."""
    found = open_catalog(chosen_store(store))[name].table("rejects")
    text = found.to_pandas().to_csv(index=False)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"written: {out}: {len(found):,} rows")


@app.command()
def images(
    name: str = typer.Argument(..., help="The dataset's name in the catalog."),
    store: Store = None,
    split: str | None = typer.Option(None, help="Only images of this split."),
    like: str | None = typer.Option(
        None, metavar="TEXT", help="Only ids with this in them; with * or ? a pattern of the whole id."
    ),
    json_file: Json = None,
) -> None:
    """The ids of a dataset's images, one per line, as `datasets show` takes them."""
    from data_catalog.image_ids import find_images

    found = find_images(open_catalog(chosen_store(store))[name].snapshot, split, like)
    write_json(json_file, found.to_pylist())
    for image_id in found["image_id"].to_pylist():
        typer.echo(image_id)
    if json_file is None and not len(found):
        typer.echo(f"{name}: no image is like that", err=True)


@app.command()
def show(
    image_id: str = typer.Argument(..., help="An image's name in the catalog."),
    store: Store = None,
    name: str = typer.Option(..., help="The dataset's name in the catalog."),
    root: Path = typer.Option(..., help="The dataset's root, where the image lies."),
    out: Path = typer.Option(Path("shown.png"), help="The picture to write."),
) -> None:
    """Draw an image's boxes, identities and ignore regions on it."""
    from data_catalog.drawing import draw_image

    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out {out}: a picture's name ends with one of {', '.join(PICTURES)}")
    draw_image(_snapshot(open_catalog(chosen_store(store)), name), image_id, root).save(out)
    typer.echo(f"written: {out}")


@app.command()
def export(
    out: Path = typer.Argument(..., help="The JSON file to write."),
    view: list[str] = typer.Option(..., help="NAME/SPLIT of an ingested dataset; may be repeated."),
    store: Store = None,
    root: list[str] = typer.Option(
        [], help="Folder put before the paths of each view's images, in their order."
    ),
) -> None:
    """Write splits of ingested datasets as one COCO JSON."""
    from data_catalog.export_coco import export_coco
    from data_catalog.views import View

    if root and len(root) != len(view):
        raise ConfigError(
            f"{len(root)} times --root for {len(view)} times --view: give one for each, or none"
        )
    catalog = open_catalog(chosen_store(store))
    views = []
    for text in view:
        dataset, slash, split = text.rpartition("/")
        if not slash:
            raise ConfigError(f"--view {text}: give NAME/SPLIT, such as prw/train")
        views.append(View(_snapshot(catalog, dataset), split))
    images, boxes = export_coco(views, out, roots=root or None)
    typer.echo(f"written: {out}: {images:,} images, {boxes:,} boxes")


@app.command()
def new(
    name: str = typer.Argument(..., help="Name of the adapter: lower-case letters, digits and '-'."),
    folder: Path | None = typer.Option(
        None, help="Where the package goes; a folder of that name by default."
    ),
) -> None:
    """Write a package with a working adapter and its test, to start from."""
    from data_catalog.skeleton import write_skeleton

    target = folder or Path(name)
    for path in write_skeleton(target, name):
        typer.echo(f"written: {path}")
    typer.echo(f"next: pip install -e {target}; then personsearch datasets check ROOT --adapter {name}")


def _summary(adapter: object) -> str:
    """The first paragraph of an adapter's docstring, on one line."""
    paragraph, _, _ = inspect.cleandoc(type(adapter).__doc__ or "").partition("\n\n")
    return " ".join(paragraph.split())


def _snapshot(catalog: Catalog, name: str) -> Snapshot:
    """The snapshot that the dataset's last ingest made or found; says which it is."""
    snapshot = catalog[name].snapshot
    typer.echo(f"{name}: snapshot {snapshot.path}")
    for note in rule_notes(snapshot):
        typer.echo(f"{note.level}: {note.message}")
    return snapshot


def _refuse_undecodable(snapshot: Snapshot, root: Path, store: ArtifactStore) -> None:
    faults = undecodable_images(root, image_digests(snapshot.table("images")), memory_of(store.root))
    faults |= undecodable_rejects(root, snapshot)
    if faults:
        shown = "; ".join(f"{path}: {fault}" for path, fault in sorted(faults.items())[:SHOWN])
        more = "; ..." if len(faults) > SHOWN else ""
        raise CatalogError(
            f"{len(faults):,} images cannot be decoded: {shown}{more}. Replace them, or leave them out "
            "(--option leave_out=PATTERN)"
        )


class _NoReporter:
    """Progress of work in this process: a line is not worth it, an ingest takes seconds."""

    def progress(self, done: int, total: int, **metrics: float) -> None:
        return None

    def should_stop(self) -> bool:
        return False


def _make(store: ArtifactStore, identity: Identity, options: Any, *, strict: bool) -> Artifact:
    with store.making(identity) as work:
        if work.made is not None:
            return work.made
        context = StageContext(identity.recipe, work.path, {}, {}, options, _NoReporter())
        made = ingest_stage.read_root(context)
        if strict:
            refuse_invalid(Snapshot(work.path))
        return work.commit(made.content_digest, metrics=made.metrics, made_by=made_by(None))
