"""`personsearch doctor`: what this machine offers, what would be slow, and what would fail."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.text import Text

from flows.cli.json_file import Json, write_json
from flows.cli.options import Store, default_store
from flows.cli.printing import plain_table, whole_lines
from flows.config.raw import given_store

_MARKS = {"ok": "[green]ok[/]", "slow": "[yellow]slow[/]", "broken": "[red]broken[/]"}


def doctor(store: Store = None, json: Json = None) -> None:
    """Check this machine: what would make runs slow or fail, and what to do about it.

    Exit status 2 if something would make runs fail.

    Example: personsearch doctor --store /srv/personsearch/store
    """
    from flows.run.machine import examine  # loads torch and Prefect

    chosen = default_store() if store is None else given_store(store, "--store")
    console = whole_lines()
    with console.status("checking"):
        facts = list(examine(chosen))
    write_json(json, [asdict(fact) for fact in facts])
    table = plain_table()
    table.show_header = False
    for fact in facts:
        table.add_row(_MARKS[fact.level], fact.name, Text(fact.value))
        if fact.advice is not None:
            table.add_row("", "", Text(f"-> {fact.advice}"))
    console.print(table)
    broken = [fact.name for fact in facts if fact.level == "broken"]
    if broken:
        typer.echo(f"error: runs will fail on this machine because of: {', '.join(broken)}", err=True)
        raise typer.Exit(2)
