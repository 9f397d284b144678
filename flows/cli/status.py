"""`personsearch status`: what the store holds, what is running, and what failed with its log."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.json_file import Json, write_json
from flows.cli.options import ConfigsStore, existing_store
from flows.cli.printing import plain_table, whole_lines
from flows.errors import ConfigError
from flows.run.records import RunRecord, is_running, read_records
from storage.listing import held
from storage.space import in_units
from storage.store import Store


def status(
    config: Annotated[
        Path | None, typer.Argument(help="A config whose store to show.", metavar="CONFIG")
    ] = None,
    store: ConfigsStore = None,
    runs: Annotated[int, typer.Option(min=0, help="Number of recent runs to show.")] = 5,
    json: Json = None,
) -> None:
    """Show what the store holds, what is running, what is unfinished, and how the last runs ended.

    Example: personsearch status configs/demo.yaml
    """
    if config is not None and config.is_dir():
        raise ConfigError(
            f"{config} is a folder, not a config; if it is a store: "
            f"{shlex.join(['personsearch', 'status', '--store', str(config)])}"
        )
    found = describe(existing_store(store, config), runs)
    write_json(json, found)
    _print(found)


def describe(store: Store, runs: int) -> dict[str, Any]:
    """The state of a store as data: `kinds`, `making`, `unfinished` and the last `runs`."""
    kinds = {kind: {"artifacts": count, "bytes": size} for kind, (count, size) in held(store).items()}
    making, unfinished = [], []
    for kind, key in store.place.work_areas():
        holder = store.place.holder(kind, key)
        area = {"artifact": f"{kind}/{key}", "log": str(store.place.log_path_of(kind, key))}
        if holder is None:
            unfinished.append(area)
        else:
            making.append(area | {"pid": holder})
    records = [run_status(record) for record, _ in zip(read_records(store.root), range(runs), strict=False)]
    return {
        "store": str(store),
        "kinds": kinds,
        "making": making,
        "unfinished": unfinished,
        "runs": records,
    }


def run_status(record: RunRecord) -> dict[str, Any]:
    """The state of a run, for --json and for the terminal."""
    failed = next((stage for stage in record.stages if stage["state"] == "failed"), None)
    state = "finished" if record.finished else "runs"
    if record.failure is not None:
        state = "stopped" if record.failure.kind == "interrupted" else "failed"
    if state == "runs" and not is_running(record):
        state = "was killed"
    log = (record.failure and record.failure.log) or (failed and failed.get("log"))
    at = record.stages[-1]["stage"] if record.stages and state in ("runs", "was killed") else None
    return {
        "name": record.name,
        "config": record.config,
        "started": record.started,
        "finished": record.finished,
        "state": state,
        "at": at,
        "made": [stage["stage"] for stage in record.stages if stage["state"] == "made"],
        "cached": sum(stage["state"] == "cached" for stage in record.stages),
        "error": record.failure and record.failure.message,
        "failure": record.failure and asdict(record.failure),
        "promotion": record.promotion,
        "bad_news": record.bad_news,
        "warnings": record.warnings,
        "log": log if log and Path(log).exists() else None,  # a stage that failed to start has none
        "record": str(record.path),
    }


def _print(found: dict[str, Any]) -> None:
    typer.echo(f"store {found['store']}")
    table = plain_table("kind", "artifacts", "size")
    for kind, of_kind in found["kinds"].items():
        table.add_row(kind, str(of_kind["artifacts"]), in_units(of_kind["bytes"]))
    whole_lines().print(table if found["kinds"] else "no artifacts yet")
    for area in found["making"]:
        typer.echo(f"process {area['pid']} is building {area['artifact']}; log: {area['log']}")
    for area in found["unfinished"]:
        typer.echo(f"unfinished: {area['artifact']}; log: {area['log']}")
    for run in found["runs"]:
        typer.echo(_line(run))
        for said in (run["error"], *run["bad_news"], *run["warnings"]):
            if said:
                typer.echo(f"  {said}")
        if run["log"]:
            typer.echo(f"  log: {run['log']}")


def _line(run: dict[str, Any]) -> str:
    made = _counted_stages(run["made"]) or "nothing"
    at = f" at {run['at']}" if run["at"] else ""
    return (
        f"{run['name']} {Path(run['config']).name} {run['state']}{at}; built {made}; {run['cached']} cached"
    )


def _counted_stages(names: list[str]) -> str:
    """`reid, report`; in a study, which builds a stage of many members, `3 reid, report`."""
    return ", ".join(name if count == 1 else f"{count:,} {name}" for name, count in Counter(names).items())
