"""`personsearch store push` and `store pull`: copies artifacts between stores, unless the other has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from flows.cli.options import Store, artifact_named, chosen_store, existing_store
from flows.config.raw import given_store
from flows.errors import ConfigError, missing
from flows.wording import counted, short_name
from storage.listing import Entry, list_entries
from storage.opening import open_store
from storage.space import in_units
from storage.store import Store as ArtifactStore
from storage.tags import set_tag, tags
from storage.transfer import copy_artifact, lineage

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARTIFACT|TAG",
        help="Only these and their sources (default: all); tags are set there, too.",
    ),
]
To = Annotated[str, typer.Option("--to", metavar="STORE", help="Folder or URL of the other store.")]
From = Annotated[str, typer.Option("--from", metavar="STORE", help="Folder or URL of the other store.")]
Alone = Annotated[bool, typer.Option("--alone", help="Do not copy their sources.")]


def push(to: To, store: Store = None, names: Names = None, alone: Alone = False) -> None:
    """Copy artifacts and their sources to another store, verifying every byte.

    Files that the other store has, in the same artifact or in another, do not move. If interrupted, run it
    again: it continues where it stopped.

    Example: personsearch store push reid/3fa9c1 --to s3://bucket/store
    """
    share(existing_store(store), open_store(given_store(to, "--to")), names, alone=alone)


def pull(source: From, store: Store = None, names: Names = None, alone: Alone = False) -> None:
    """Copy artifacts and their sources from another store, verifying every byte.

    Files that this store has, in the same artifact or in another, do not move. If interrupted, run it again:
    it continues where it stopped.

    Example: personsearch store pull production --from s3://bucket/store
    """
    target = open_store(chosen_store(store))
    other = open_store(given_store(source, "--from"))
    if not other.exists():
        raise ConfigError(f"--from: {missing(str(other), 'store')}; name the one to copy from")
    share(other, target, names, alone=alone)


def export_artifacts(to: To, store: Store = None, names: Names = None, alone: Alone = False) -> None:
    """The name of `push` in earlier versions."""
    _say_new_name("export", "push")
    push(to, store, names, alone)


def import_artifacts(source: From, store: Store = None, names: Names = None, alone: Alone = False) -> None:
    """The name of `pull` in earlier versions."""
    _say_new_name("import", "pull")
    pull(source, store, names, alone)


def share(source: ArtifactStore, target: ArtifactStore, names: list[str] | None, *, alone: bool) -> None:
    """Copy artifacts, then set those of `names` that are tags in the other store, too."""
    if source.root.resolve() == target.root.resolve():
        raise ConfigError(f"both stores are {source}: name another one to copy to or from")
    entries, tagged = list_entries(source), tags(source)
    chosen = {name: tagged[name] for name in names or () if name in tagged}
    rest = [_named(source, name, entries, tagged) for name in names or () if name not in tagged]
    there = {entry.name for entry in entries}
    for tag, artifact in chosen.items():
        if artifact not in there:
            raise ConfigError(f"the tag {tag!r} of {source} points to {artifact}, which is not there")
    wanted = [*chosen.values(), *rest] if names else [entry.name for entry in entries]
    copied = size = moved = 0
    for name in wanted if alone else lineage(source, wanted):
        received = copy_artifact(source, target, name)
        if received is None:
            continue
        copied, size, moved = copied + 1, size + received.size, moved + received.moved
        typer.echo(f"  {short_name(name)}  {_amount(received.size, received.moved)}")
    before = tags(target) if chosen else {}
    for tag, artifact in chosen.items():
        if before.get(tag) != artifact:
            set_tag(target, tag, artifact)
            was = f" (was {short_name(before[tag])})" if tag in before else ""
            typer.echo(f"  {tag} now points to {short_name(artifact)}{was}")
    typer.echo(f"{counted(copied, 'artifact')} copied to {target}, {_amount(size, moved)}")


def _named(source: ArtifactStore, name: str, entries: Sequence[Entry], tagged: Mapping[str, str]) -> str:
    try:
        return artifact_named(source, name, entries).name
    except ConfigError as error:
        raise ConfigError(f"{error}; it is not a tag either (tags: {', '.join(tagged) or 'none'})") from error


def _amount(size: int, moved: int) -> str:
    return in_units(size) if moved == size else f"{in_units(size)}, of which {in_units(moved)} moved"


def _say_new_name(old: str, new: str) -> None:
    typer.echo(f"note: `store {old}` is now `store {new}`; the old name goes with the next release", err=True)
