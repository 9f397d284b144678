"""`personsearch store gc`: delete what no config, tag or run needs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigsStore, chosen_store, existing_store
from flows.errors import ConfigError
from flows.run.reach import InUse, Reach, last_users, reached_by
from flows.run.records import RUN_NAME, RunRecord, find_record
from flows.wording import counted, short_name
from storage.gc import Garbage, collect, find_garbage
from storage.listing import no_collections
from storage.space import in_units
from storage.store import Store as ArtifactStore
from storage.tags import tags
from storage.urls import is_remote

YOUNG_HOURS = 24.0


def gc(
    store: ConfigsStore = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONFIG|STUDY|RUN",
            help="Keep all artifacts of a config, of a study, or of a run or sweep by its name in `status`; "
            "repeatable.",
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without this, only list what would be deleted.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Delete even if nothing is kept, or if sources of kept artifacts may be lost.",
        ),
    ] = False,
    min_age: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="HOURS", help="Keep younger artifacts (default: 24 if the store is a URL, else 0)."
        ),
    ] = None,
) -> None:
    """Delete artifacts that no given config, no tag and no running pipeline needs. Lists them first.

    Runs on other machines are not visible, so on object storage young artifacts stay.

    Example: personsearch store gc --keep configs/demo.yaml --delete
    """
    place = chosen_store(store, *(Path(name) for name in keep or () if not RUN_NAME.fullmatch(name)))
    opened = existing_store(place)
    hours = min_age if min_age is not None else YOUNG_HOURS if is_remote(place) else 0.0
    reach = _reach_of(keep or (), opened, everything=everything)
    if not reach.names and not tags(opened) and not everything:
        raise ConfigError(
            "refusing to delete everything: name what to keep (--keep CONFIG, or a tag), or pass --all"
        )
    if reach.unmade:
        typer.echo(f"not built yet: {', '.join(reach.unmade)}; artifacts that depend on these are not kept")
    used = InUse(opened)
    with no_collections():
        garbage = find_garbage(opened, reach.names | used(), timedelta(hours=hours), despite_gaps=everything)
        _print_garbage(garbage, last_users(opened))
    count = sum(map(len, (garbage.artifacts, garbage.work_areas, garbage.set_aside, garbage.objects)))
    what = "would be deleted (pass --delete to do so)"
    if delete:
        stayed = collect(opened, garbage, used)
        what = "deleted" + (
            f", except {len(stayed)} that runs have started to build or use" if stayed else ""
        )
    if is_remote(place):
        typer.echo(
            f"runs on other machines are not visible: artifacts younger than {hours:g} h stay, with their "
            "sources; protect older ones that are in use elsewhere with --keep or a tag"
        )
    typer.echo(f"{count} {what}, {in_units(garbage.size)}; {counted(garbage.kept, 'artifact')} kept")


def _reach_of(names: Iterable[str], store: ArtifactStore, *, everything: bool) -> Reach:
    """What each name keeps, printed. Refuses a name that keeps nothing, unless `everything`."""
    reach = Reach()
    for name in names:
        of_name = _kept_by(name, store)
        made = sum(store.named(each) is not None for each in of_name.names)
        typer.echo(f"{name} keeps {counted(made, 'artifact')}")
        if not made and not everything:
            raise ConfigError(f"{name} keeps nothing of {store}: check the name and the store, or pass --all")
        reach.add(of_name)
    return reach


def _kept_by(name: str, store: ArtifactStore) -> Reach:
    """What a config, a study or a recorded run reaches in the store."""
    from flows.config.loading import load_config
    from flows.stages.building import build_stages
    from flows.studies.loading import Loader
    from flows.studies.members import resolve_study
    from flows.studies.reading import is_study, read_study

    if RUN_NAME.fullmatch(name):
        record = find_record(store.root, name)
        if record is None:
            shown = shlex.join(["personsearch", "status", "--store", str(store)])
            raise ConfigError(f"--keep {name}: {store} has no record of this run; to see the runs: {shown}")
        return Reach(set(record.artifacts()))
    path = Path(name)
    if not is_study(path):
        return reached_by(build_stages(load_config(path, store=str(store))), store)
    study = resolve_study(path, read_study(path), store=str(store))
    loader, reach = Loader(str(store)), Reach()
    for member in study.members.values():
        reach.add(reached_by(loader.load(member).stages, store))
    reach.unmade = list(dict.fromkeys(reach.unmade))
    return reach


def _print_garbage(garbage: Garbage, users: Mapping[str, RunRecord]) -> None:
    lines = []
    for entry in garbage.artifacts:
        user = users.get(entry.name) if users else None
        of = f"  last used by {user.name} ({Path(user.config).name})" if user else ""
        lines.append(f"  {short_name(entry.name)}  {in_units(entry.size)}  {entry.created}{of}\n")
    typer.echo("".join(lines), nl=False)
    for folder in garbage.work_areas:
        typer.echo(f"  unfinished {short_name(folder.name)}  {in_units(folder.size)}")
    for folder in garbage.set_aside:
        typer.echo(f"  {folder.name}  {in_units(folder.size)}")
    for objects in garbage.objects:
        typer.echo(f"  {objects.name} (in no manifest)  {in_units(objects.size)}")
    if garbage.strays:
        typer.echo(f"  locks and unfinished files of dead processes: {len(garbage.strays):,}")
