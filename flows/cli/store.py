"""`personsearch store`: list, verify, tag, delete and copy artifacts."""

from __future__ import annotations

import json as json_format
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from data_catalog.suggestions import did_you_mean
from flows.cli.json_file import Json, write_json_lines
from flows.cli.lazy import Lazy, lazy_group
from flows.cli.options import ConfigsStore, Store, artifact_named, existing_store
from flows.cli.printing import padded
from flows.cli.store_sharing import export_artifacts, import_artifacts, pull, push
from flows.errors import ConfigError
from flows.wording import counted, short_name
from personsearch_core.checksums import listed_files, problems
from storage.errors import StorageError
from storage.listing import Entry, list_entries, no_collections, with_followers
from storage.opening import open_store
from storage.space import in_units
from storage.store import Store as ArtifactStore
from storage.tags import remove_tag, set_tag, tags

if TYPE_CHECKING:
    from flows.config.models import Config

COMMANDS = {
    "gc": Lazy(
        "flows.cli.store_gc:gc",
        "Delete artifacts that no given config, no tag and no running pipeline needs. Lists them first.",
    ),
    "features": Lazy("flows.cli.features:app", "Cached features: show, verify, export, statistics."),
}

app = typer.Typer(
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    help="Artifacts: list, show, verify, invalidate, tag, clean up, share.",
)

Name = Annotated[str, typer.Argument(metavar="ARTIFACT", help="kind/key or key; a unique prefix is enough.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="ARTIFACT", help="Only these artifacts (default: all).")
]


@app.command("ls")
def list_artifacts(
    store: Store = None,
    kind: Annotated[str | None, typer.Option(help="List only this kind: ingest, detector, ...")] = None,
    json: Json = None,
) -> None:
    """List all artifacts with their date, size, build time and tags.

    Example: personsearch store ls --kind reid
    """
    opened = existing_store(store)
    with no_collections():
        entries = list_entries(opened, kind)
        if kind is not None and not entries:
            _require_kind(kind)
        tagged = _tags_by_artifact(opened)
        write_json_lines(json, (entry.as_data() | {"tags": tagged.get(entry.name, [])} for entry in entries))
        units, tenths = cache(in_units), cache("{:.1f}".format)  # a million rows repeat a few of them
        rows = [
            (
                short_name(entry.name),
                entry.created,
                units(entry.size),
                tenths(entry.seconds),
                " ".join(tagged.get(entry.name, ())) if tagged else "",
            )
            for entry in entries
        ]
        typer.echo(padded(("artifact", "built", "size", "seconds", "tags"), rows))
    typer.echo(f"{counted(len(entries), 'artifact')}, {in_units(sum(entry.size for entry in entries))}")


@app.command()
def show(name: Name, store: Store = None) -> None:
    """Show one artifact: its recipe, metrics, files, sources, and the artifacts built from it.

    Example: personsearch store show reid/3fa9c1 --store STORE
    """
    opened = existing_store(store)
    entries = list_entries(opened)
    entry = artifact_named(opened, name, entries)
    found = opened.peek(entry.kind, entry.key)
    if found is None:
        raise StorageError(
            f"the manifest of {entry.name} is damaged; for details: "
            f"personsearch store verify --store {opened}"
        )
    manifest = found.manifest
    followers = sorted(with_followers(entries, [entry.name]) - {entry.name})
    shown: dict[str, Any] = {
        "artifact": entry.name,
        "path": str(found.path),
        "made": manifest.created,
        "seconds": manifest.seconds,
        "peak_memory": in_units(manifest.peak_memory_bytes or 0),
        "size": in_units(entry.size),
        "content_digest": manifest.content_digest,
        "recipe": manifest.identity.recipe,
        "metrics": manifest.metrics,
        "made_from": manifest.sources,
        "used_by": followers,
        "made_by": manifest.made_by,
        "files": {file: in_units(of.size) for file, of in manifest.files.items()},
    }
    typer.echo(json_format.dumps(shown, indent=1))


@app.command()
def verify(store: Store = None, names: Names = None) -> None:
    """Verify the digest of every file. Exits with status 2 if any is damaged; the next run rebuilds it.

    Example: personsearch store verify --store STORE
    """
    opened = existing_store(store)
    entries = list_entries(opened)
    chosen = [artifact_named(opened, name, entries) for name in names] if names else None
    checked = [(entry.kind, entry.key) for entry in chosen] if chosen else list(opened.keys())
    checked += [] if names else opened.without_manifest()
    damaged = 0
    for kind, key in checked:
        found = opened.verify(kind, key)
        damaged += bool(found)
        for problem in found:
            typer.echo(f"{short_name(f'{kind}/{key}')}: {problem}")
    studies = [] if names else damaged_studies(opened)
    for problem in studies:
        typer.echo(problem)
    if studies and not damaged:
        raise StorageError(f"damaged: {counted(len(studies), 'file')} of studies; run these studies again")
    if damaged:
        raise StorageError(
            f"damaged: {damaged} of {counted(len(checked), 'artifact')}; the next run rebuilds them"
        )
    typer.echo(f"{counted(len(checked), 'artifact')} verified, no damage found")


@app.command()
def invalidate(
    name: Annotated[
        str,
        typer.Argument(metavar="ARTIFACT|STAGE", help="An artifact, or with --config the name of a stage."),
    ],
    store: ConfigsStore = None,
    config: Annotated[Path | None, typer.Option(help="Config whose stage to invalidate.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False,
) -> None:
    """Delete an artifact, so that the next run rebuilds it, and list what depends on it.

    Artifacts built from it stay, and stay cached if the rebuilt one has the same content.
    An artifact that a run on this machine is building or using is not deleted.

    Example: personsearch store invalidate reid --config configs/demo.yaml
    """
    if config is not None:
        from flows.config.loading import load_config

        settings = load_config(config, store=store)
        opened = open_store(settings.store)
        name = _artifact_of_stage(opened, settings, config, name)
    else:
        opened = existing_store(store)
    entries = list_entries(opened)
    entry = artifact_named(opened, name, entries)
    followers = sorted(with_followers(entries, [entry.name]) - {entry.name})
    if not dry_run:
        _remove_unused(opened, entry)
    typer.echo(f"{'would delete' if dry_run else 'deleted'} {entry.name}, {in_units(entry.size)}")
    typer.echo(f"artifacts built from it: {len(followers) or 'none'}")
    for follower in followers:
        typer.echo(f"  {short_name(follower)}")


@app.command()
def tag(
    name: Name,
    tag: Annotated[str, typer.Argument(metavar="TAG", help="Tag to set, such as release-7.")],
    store: Store = None,
) -> None:
    """Tag an artifact, so that `gc` keeps it and everything that it was built from.

    Example: personsearch store tag reid/3fa9c1 release-7 --store STORE
    """
    opened = existing_store(store)
    entry = artifact_named(opened, name)
    set_tag(opened, tag, entry.name)
    typer.echo(f"{tag} now points to {entry.name}")


@app.command()
def untag(
    tag: Annotated[str, typer.Argument(metavar="TAG", help="Tag to remove.")], store: Store = None
) -> None:
    """Remove a tag; its artifact stays until the next `gc`.

    Example: personsearch store untag release-7 --store STORE
    """
    remove_tag(existing_store(store), tag)


app.command("push")(push)
app.command("pull")(pull)
app.command("export", hidden=True)(export_artifacts)
app.command("import", hidden=True)(import_artifacts)


def damaged_studies(store: ArtifactStore) -> list[str]:
    """What is wrong with the files of studies and sweeps, by the digests beside them."""
    return [
        f"{folder.relative_to(store.root)}: {problem}; run the study again"
        for folder in sorted((store.root / ".studies").glob("*"))
        for problem in problems(folder, listed_files(folder))
    ]


def _remove_unused(store: ArtifactStore, entry: Entry) -> None:
    from flows.run.reach import in_use

    with store.place.making_now(entry.kind, entry.key) as alone:
        if not alone or entry.name in in_use(store):
            raise StorageError(
                f"{entry.name} is in use by a running pipeline; try again when it has finished (which: "
                f"personsearch status --store {store})"
            )
        store.remove(entry.kind, entry.key)


def _artifact_of_stage(opened: ArtifactStore, settings: Config, config: Path, stage: str) -> str:
    """The artifact of a stage, as kind/key; `config` is the path of the settings, for messages."""
    from flows.plan.states import make_plan
    from flows.stages.building import build_stages

    plan = make_plan(build_stages(settings), opened)
    if any(planned.stage.name == stage and planned.pinned is not None for planned in plan):
        raise ConfigError(
            f"{stage} of {config} is pinned: no run would build it again; name the artifact itself"
        )
    made = {planned.stage.name: planned.artifact for planned in plan}
    if stage not in made:
        hint = did_you_mean(stage, made) or f"; {config} has: {', '.join(made)}"
        raise ConfigError(f"there is no stage {stage!r}{hint}")
    artifact = made[stage]
    if artifact is None:
        raise ConfigError(f"{stage} of {config} is not built yet, so there is nothing to invalidate")
    return artifact.name


def _require_kind(kind: str) -> None:
    from flows.config.sections import Kind  # loads the models of a config

    kinds = get_args(Kind)
    if kind not in kinds:
        hint = did_you_mean(kind, kinds) or f"; choose {', '.join(kinds)}"
        raise ConfigError(f"--kind: unknown kind {kind!r}{hint}")


def _tags_by_artifact(store: ArtifactStore) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, artifact in tags(store).items():
        found.setdefault(artifact, []).append(name)
    return found
