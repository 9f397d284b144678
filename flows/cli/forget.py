"""`personsearch forget`: remove a person or an image from a store permanently."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigsStore, existing_store
from flows.wording import counted, duration, short_name

if TYPE_CHECKING:
    from flows.forget.forgetting import Forgot, Plan
    from flows.forget.scan import Find

SHOWN = 20
"""Number of files to list per scan."""


def forget(
    person: Annotated[
        list[str] | None,
        typer.Option(metavar="DATASET/ID", help="A person, by its id in a dataset; repeatable."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="DATASET/IMAGE", help="A whole image, by its id in a dataset; repeatable."),
    ] = None,
    store: ConfigsStore = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CONFIG",
            help="Rebuild what this config needs, with the models that it has; repeatable.",
        ),
    ] = None,
    index: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="INDEX", help="Also remove the images that show them from this index; repeatable."
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what holds them and what would be done.")
    ] = False,
) -> None:
    """Forget people or images: no ingest brings them back, and what holds them is deleted.

    Models that were trained on them stay, and are listed. If interrupted, run it again: it continues.

    Example: personsearch forget --person prw/479 --config configs/demo.yaml
    """
    from flows.forget import forgetting
    from flows.forget.subject import subjects_of

    subjects = subjects_of(person or (), image or ())
    opened = existing_store(store, *(config or ()))
    planned = forgetting.plan_forgetting(opened, subjects, config or ())
    _print_plan(planned)
    if plan:
        _print_models(planned)
        typer.echo("nothing was changed: leave --plan out to forget them")
        return
    forgot = forgetting.forget(opened, planned, index or ())
    _print_end(forgot)
    _print_models(planned)
    if forgot.after:
        sys.exit(1)


def _print_plan(plan: Plan) -> None:
    holders = plan.holders
    typer.echo(f"to forget: {', '.join(word for subject in plan.subjects for word in subject.words())}")
    if not holders.snapshots:
        typer.echo("no artifact in the store holds them")
    for held in holders.snapshots:
        typer.echo(f"  delete  {short_name(held.name)}  (splits {', '.join(sorted(held.splits))})")
    for entry in holders.data:
        typer.echo(f"  delete  {short_name(entry.name)}")
    for tag, name in sorted(holders.tagged.items()):
        typer.echo(f"  delete  the tag {tag}, which points to {short_name(name)}")
    for each in plan.remakes:
        models = ", ".join(short_name(name) for name in each.models.values())
        typer.echo(f"  rebuild  what {each.config} needs" + (f", with {models}" if models else ""))


def _print_end(forgot: Forgot) -> None:
    removed = forgot.removed
    typer.echo(
        f"{counted(removed.artifacts, 'artifact')}, {counted(removed.records, 'run record')} and "
        f"{counted(len(removed.tags), 'tag')} deleted, with their logs, memos and unfinished work"
    )
    for folder, (files, people) in forgot.of_indexes.items():
        typer.echo(f"{folder}: {counted(files, 'file')} with {people:,} people removed")
    _print_scan("before", forgot.before)
    _print_scan("after", forgot.after)
    for name in removed.unfinished:
        typer.echo(
            f"note: {short_name(name)} is an unfinished training, perhaps on them: `store gc` deletes it, or "
            "run its config to the end"
        )


def _print_models(plan: Plan) -> None:
    """The models that learnt them, and what training again takes."""
    models = plan.holders.models
    if not models:
        return
    typer.echo("models trained on them are kept; running their configs again trains new ones without them:")
    for model in models:
        tagged = f"; tags: {', '.join(model.tags)}" if model.tags else ""
        spent = duration(model.seconds)
        typer.echo(f"  {short_name(model.name)}  {spent} of training, built {model.created}{tagged}")
    typer.echo(f"  together {duration(sum(model.seconds for model in models))}")
    names = shlex.join(["personsearch", "store", "invalidate", models[0].name])
    typer.echo(f"to delete one: {names}")


def _print_scan(when: str, finds: Sequence[Find]) -> None:
    by_file: dict[str, list[str]] = {}
    for find in finds:
        by_file.setdefault(find.file, []).append(find.what)
    found = f"found in {counted(len(by_file), 'file')}" if by_file else "nothing found"
    typer.echo(f"scan {when}: {found}")
    for file, whats in list(by_file.items())[:SHOWN]:
        typer.echo(f"  {file}: {'; '.join(whats)}")
    if len(by_file) > SHOWN:
        typer.echo(f"  and {len(by_file) - SHOWN:,} more files")
