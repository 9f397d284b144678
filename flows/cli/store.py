"""`personsearch store`: what is kept, whether it is whole, and what can go."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.json_file import Json, write_json_lines
from flows.cli.lazy import Lazy, lazy_group
from flows.cli.options import ConfigsStore, Store, chosen_store
from flows.cli.printing import padded
from flows.config.raw import given_store
from flows.errors import ConfigError
from storage.errors import StorageError
from storage.gc import Garbage, collect, find_garbage
from storage.listing import Entry, list_entries, resolve_name, with_followers
from storage.opening import open_existing, open_store
from storage.space import in_units
from storage.store import Store as ArtifactStore
from storage.tags import remove_tag, set_tag, tags
from storage.transfer import copy_artifact, lineage
from storage.urls import is_remote

if TYPE_CHECKING:
    from flows.config.models import Config
    from flows.plan.reach import Reach

COMMANDS = {
    "features": Lazy("flows.cli.features:app", "Stores of pooled features: show, verify, export, statistics.")
}

app = typer.Typer(
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    help="Artifacts: list, show, verify, make anew, clean up, move.",
)

YOUNG_HOURS = 24.0

Name = Annotated[
    str, typer.Argument(metavar="ARTIFACT", help="kind/key or key; its first characters suffice.")
]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[ARTIFACT]...", help="Those alone; all by default.")
]


@app.command("ls")
def list_artifacts(
    store: Store = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: ingest, detector, ...")] = None,
    json: Json = None,
) -> None:
    """Every artifact with its age, size, and how long it took to make."""
    opened = open_existing(chosen_store(store))
    entries = list_entries(opened, kind)
    tagged = _tags_by_artifact(opened)
    write_json_lines(json, ({**entry.__dict__, "tags": tagged.get(entry.name, [])} for entry in entries))
    rows = [
        (
            _short(entry.name),
            entry.created,
            in_units(entry.size),
            f"{entry.seconds:.1f}",
            " ".join(tagged.get(entry.name, [])),
        )
        for entry in entries
    ]
    typer.echo(padded(("artifact", "made", "size", "seconds", "tags"), rows))
    typer.echo(f"{len(entries)} artifacts, {in_units(sum(entry.size for entry in entries))}")


@app.command()
def show(name: Name, store: Store = None) -> None:
    """One artifact: its recipe, figures, files, what it was made from and what was made from it."""
    opened = open_existing(chosen_store(store))
    entries = list_entries(opened)
    entry = resolve_name(entries, name)
    found = opened.peek(entry.kind, entry.key)
    if found is None:
        raise StorageError(f"the manifest of {entry.name} is damaged; `store verify` says how")
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
    """Digest every file again. Exits with 2 when anything is damaged; the next run makes it anew."""
    opened = open_existing(chosen_store(store))
    entries = list_entries(opened)
    chosen = [resolve_name(entries, name) for name in names] if names else None
    checked = [(entry.kind, entry.key) for entry in chosen] if chosen else list(opened.keys())
    damaged = 0
    for kind, key in checked:
        problems = opened.verify(kind, key)
        damaged += bool(problems)
        for problem in problems:
            typer.echo(f"{_short(f'{kind}/{key}')}: {problem}")
    if damaged:
        raise StorageError(f"{damaged} of {len(checked)} artifacts are damaged; the next run makes them anew")
    typer.echo(f"{len(checked)} artifacts are whole")


@app.command()
def invalidate(
    name: Annotated[str, typer.Argument(metavar="ARTIFACT|STAGE", help="Or a stage's name, with --config.")],
    store: ConfigsStore = None,
    config: Annotated[Path | None, typer.Option(help="Find the artifact of a stage of this config.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
) -> None:
    """Delete an artifact, so that the next run makes it again, and say what depends on it.

    What was made from it stays: made again to the same content, all of it is cached as before.
    What a run of this machine makes or uses now is not deleted.
    """
    if config is not None:
        from flows.config.models import load_config

        settings = load_config(config, store=store)
        opened = open_store(settings.store)
        name = _artifact_of_stage(opened, settings, config, name)
    else:
        opened = open_existing(chosen_store(store))
    entries = list_entries(opened)
    entry = resolve_name(entries, name)
    followers = sorted(with_followers(entries, [entry.name]) - {entry.name})
    if not dry_run:
        _remove_unused(opened, entry)
    typer.echo(f"{'would delete' if dry_run else 'deleted'} {entry.name}, {in_units(entry.size)}")
    typer.echo(f"{len(followers)} artifacts were made from it" + (":" if followers else ""))
    for follower in followers:
        typer.echo(f"  {_short(follower)}")


@app.command()
def tag(
    name: Name,
    tag: Annotated[str, typer.Argument(metavar="TAG", help="The name to give: release-7.")],
    store: Store = None,
) -> None:
    """Give an artifact a name; `gc` then keeps it and everything that it was made from."""
    opened = open_existing(chosen_store(store))
    entry = resolve_name(list_entries(opened), name)
    set_tag(opened, tag, entry.name)
    typer.echo(f"{tag} is {entry.name}")


@app.command()
def untag(
    tag: Annotated[str, typer.Argument(metavar="TAG", help="The name to forget.")], store: Store = None
) -> None:
    """Forget a tag; its artifact stays until the next `gc`."""
    remove_tag(open_existing(chosen_store(store)), tag)


@app.command()
def gc(
    store: ConfigsStore = None,
    keep: Annotated[
        list[Path] | None, typer.Option(metavar="CONFIG", help="Keep what this config reaches; repeatable.")
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without it, only say what would go.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Go on although no config and no tag keeps anything, or what is kept may lose its sources.",
        ),
    ] = False,
    min_age: Annotated[
        float | None,
        typer.Option(min=0, metavar="HOURS", help="Keep what is younger: 24 where --store is a URL, else 0."),
    ] = None,
) -> None:
    """Delete what no given config, no tag and no running pipeline reaches; says the bytes first.

    Pipelines on other machines cannot be seen: on object storage, what is young stays.
    """
    from flows.plan.reach import InUse

    place = chosen_store(store, *(keep or ()))
    opened = open_existing(place)
    hours = min_age if min_age is not None else YOUNG_HOURS if is_remote(place) else 0.0
    reach = _reach_of(keep or (), opened, everything=everything)
    if not reach.names and not tags(opened) and not everything:
        raise ConfigError("nothing would be kept: give --keep CONFIG, tag an artifact, or say --all")
    if reach.unmade:
        typer.echo(
            f"not made yet: {', '.join(reach.unmade)}; what older artifacts these would lead to is not kept"
        )
    used = InUse(opened)
    garbage = find_garbage(opened, reach.names | used(), timedelta(hours=hours), despite_gaps=everything)
    _print_garbage(garbage)
    count = sum(map(len, (garbage.artifacts, garbage.work_areas, garbage.set_aside, garbage.objects)))
    what = "would be deleted (--delete does it)"
    if delete:
        stayed = collect(opened, garbage, used)
        what = "deleted" + (
            f", but for {len(stayed)} that runs have begun to make or to use" if stayed else ""
        )
    if is_remote(place):
        typer.echo(
            f"runs on other machines cannot be seen: what is younger than {hours:g} h stays, with what it "
            "was made from; that something older is used elsewhere, only --keep and tags can say"
        )
    typer.echo(f"{count} {what}, {in_units(garbage.size)}; {garbage.kept} artifacts stay")


@app.command("export")
def export_artifacts(
    to: Annotated[str, typer.Option("--to", help="Folder or URL of the other store.")],
    store: Store = None,
    names: Names = None,
    alone: Annotated[bool, typer.Option("--alone", help="Without what they were made from.")] = False,
) -> None:
    """Copy artifacts, and what they were made from, to another store; every byte is verified."""
    _copy(open_existing(chosen_store(store)), open_store(given_store(to, "--to")), names, alone=alone)


@app.command("import")
def import_artifacts(
    source: Annotated[str, typer.Option("--from", help="Folder or URL of the other store.")],
    store: Store = None,
    names: Names = None,
    alone: Annotated[bool, typer.Option("--alone", help="Without what they were made from.")] = False,
) -> None:
    """Copy artifacts, and what they were made from, out of another store; every byte is verified."""
    target = chosen_store(store)
    _copy(open_existing(given_store(source, "--from")), open_store(target), names, alone=alone)


def _copy(source: ArtifactStore, target: ArtifactStore, names: list[str] | None, *, alone: bool) -> None:
    entries = list_entries(source)
    chosen = [resolve_name(entries, name) for name in names] if names else entries
    wanted = [entry.name for entry in chosen]
    sizes = {entry.name: entry.size for entry in entries}
    copied = moved = 0
    for name in wanted if alone else lineage(source, wanted):
        if copy_artifact(source, target, name):
            copied, moved = copied + 1, moved + sizes[name]
            typer.echo(f"  {_short(name)}  {in_units(sizes[name])}")
    typer.echo(f"{copied} artifacts copied to {target}, {in_units(moved)}")


def _reach_of(configs: Iterable[Path], store: ArtifactStore, *, everything: bool) -> Reach:
    """What all configs keep, said for each; a config that keeps nothing is refused but for `everything`."""
    from flows.plan.reach import Reach, reached_by

    reach = Reach()
    for config in configs:
        of_config = reached_by([config], store)
        made = sum(store.peek(*name.split("/")) is not None for name in of_config.names)
        typer.echo(f"{config} keeps {made} artifacts")
        if not made and not everything:
            raise ConfigError(
                f"{config} keeps nothing of {store}: is it another config or another store? If not, say --all"
            )
        reach.names |= of_config.names
        reach.unmade += of_config.unmade
    return reach


def _print_garbage(garbage: Garbage) -> None:
    for entry in garbage.artifacts:
        typer.echo(f"  {_short(entry.name)}  {in_units(entry.size)}  {entry.created}")
    for folder in garbage.work_areas:
        typer.echo(f"  unfinished {_short(folder.name)}  {in_units(folder.size)}")
    for folder in garbage.set_aside:
        typer.echo(f"  {folder.name}  {in_units(folder.size)}")
    for objects in garbage.objects:
        typer.echo(f"  {objects.name}, which no manifest names  {in_units(objects.size)}")
    if garbage.strays:
        typer.echo(f"  {len(garbage.strays)} locks and unfinished files of processes that died")


def _remove_unused(store: ArtifactStore, entry: Entry) -> None:
    from flows.plan.reach import in_use

    with store.making_now(entry.kind, entry.key) as alone:
        if not alone or entry.name in in_use(store):
            raise StorageError(
                f"{entry.name} is made or used by a run that goes on now (`status` shows which): try again "
                "when it has ended"
            )
        store.remove(entry.kind, entry.key)


def _artifact_of_stage(opened: ArtifactStore, settings: Config, config: Path, stage: str) -> str:
    """`config` is where the settings were read, for messages."""
    from flows.plan.states import make_plan
    from flows.stages.building import build_stages

    plan = make_plan(build_stages(settings), opened)
    made = {planned.stage.name: planned.artifact for planned in plan}
    if stage not in made:
        raise ConfigError(f"there is no stage {stage!r}; {config} has {', '.join(made)}")
    artifact = made[stage]
    if artifact is None:
        raise ConfigError(f"{stage} of {config} is not made: there is nothing to invalidate")
    return f"{artifact.kind}/{artifact.key}"


def _tags_by_artifact(store: ArtifactStore) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, artifact in tags(store).items():
        found.setdefault(artifact, []).append(name)
    return found


def _short(name: str) -> str:
    kind, _, key = name.partition("/")
    return f"{kind}/{key[:12]}"
