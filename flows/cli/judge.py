"""`personsearch judge`: confirm and reject matches of an index, and export what was confirmed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from flows.cli.index import root_paths
from flows.cli.json_file import Json, write_json
from flows.cli.options import SceneRoots
from flows.cli.printing import plain_table, whole_lines
from flows.errors import ConfigError
from flows.wording import counted

if TYPE_CHECKING:
    from flows.search.index import Index
    from flows.search.judgements import Judged, Judgements

JudgementsFile = Annotated[
    Path | None,
    typer.Option(
        "--judgements", metavar="FILE", help="File of judgements (default: INDEX.judgements.jsonl)."
    ),
]
"""The option of every command that reads or writes judgements."""


def judge(
    index: Annotated[Path, typer.Argument(help="An index.", metavar="INDEX")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The person whose matches are confirmed or rejected.")
    ] = None,
    confirm: Annotated[
        list[int] | None,
        typer.Option(metavar="ROW", help="Row of a match, as `search` shows it; repeatable."),
    ] = None,
    reject: Annotated[list[int] | None, typer.Option(metavar="ROW", help="As --confirm.")] = None,
    withdraw: Annotated[
        list[int] | None, typer.Option(metavar="ROW", help="Withdraw the verdict on a row.")
    ] = None,
    judgements: JudgementsFile = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write all confirmed shots as a dataset (COCO)."),
    ] = None,
    root: SceneRoots = None,
    json: Json = None,
) -> None:
    """Confirm or reject matches for a person, list judgements, or export them as a dataset.

    Judgements are kept in a file of yours and change no index: `search --name NAME` takes them into account.

    Example: personsearch judge people --name Ann --confirm 17 --confirm 230 --reject 4
    """
    from flows.search.index import open_index

    verdicts = {"confirmed": confirm or [], "rejected": reject or [], "withdrawn": withdraw or []}
    if any(verdicts.values()) and name is None:
        raise ConfigError("--confirm, --reject and --withdraw need a person (--name)")
    opened = open_index(index, "cpu", roots=root_paths(index, root or ()))
    kept = judgements_of(index, judgements)
    _add(opened, kept, name or "", verdicts)
    if export is not None:
        _export(opened, kept, export, json)
    else:
        _show(opened, kept, name, json)


def judgements_of(index: Path, file: Path | None) -> Judgements:
    """The judgements in a file, or in the one beside the index."""
    from flows.search.judgements import Judgements, beside

    return Judgements(file or beside(index))


def judged_rows(index: Index, name: str | None, file: Path | None) -> Judged:
    """What holds for a person; nothing without a name. Raises ConfigError if nothing was judged for it."""
    from flows.search.judgements import Judged

    if name is None:
        if file is not None:
            raise ConfigError("--judgements needs a person (--name)")
        return Judged()
    kept = judgements_of(index.folder, file)
    judged = kept.of(index, name)
    if not judged.confirmed and not judged.rejected:
        known = ", ".join(kept.names()) or "no judgements yet"
        raise ConfigError(
            f"nothing in the index is judged for {name!r} (`personsearch judge` does that); {kept.file} has: "
            f"{known}"
        )
    return judged


def _add(index: Index, kept: Judgements, name: str, verdicts: dict[Any, list[int]]) -> None:
    rows = [row for each in verdicts.values() for row in each]
    if twice := sorted({row for row in rows if rows.count(row) > 1}):
        raise ConfigError(f"row {twice[0]} is given twice")
    for row in rows:
        index.row(row)
    for verdict, own in verdicts.items():
        if own:
            kept.add(index, name, verdict, own)


def _export(index: Index, kept: Judgements, folder: Path, json: Path | None) -> None:
    from flows.search.confirmed import export_confirmed

    exported = export_confirmed(index, kept, folder)
    write_json(json, asdict(exported))
    for fault in exported.left_out:
        typer.echo(f"left out: {fault}", err=True)
    people = counted(exported.people, "person", "people")
    shots, images = counted(exported.shots, "confirmed shot"), counted(exported.images, "image")
    typer.echo(
        f"wrote {shots} of {people} in {images}; to read them:\n"
        f"  personsearch datasets ingest {folder} --adapter coco --option person_id=person_id "
        "--option camera_id=cam_id --store STORE --name confirmed"
    )


def _show(index: Index, kept: Judgements, name: str | None, json: Path | None) -> None:
    judged = {each: kept.of(index, each) for each in ([name] if name else kept.names())}
    write_json(json, {each: asdict(found) for each, found in judged.items()})
    if not judged:
        typer.echo(f"nothing is judged in {kept.file}")
        return
    table = plain_table("name", "confirmed", "rejected", "not in the index")
    for each, found in judged.items():
        table.add_row(
            Text(each),
            _rows(found.confirmed),
            _rows(found.rejected),
            str(found.missing) if found.missing else "",
        )
    whole_lines().print(table)


def _rows(rows: tuple[int, ...]) -> str:
    return f"{len(rows)} ({', '.join(map(str, rows))})" if rows else "0"
