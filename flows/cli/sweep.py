"""`personsearch sweep`: a grid of settings over one store."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from flows.cli.options import ConfigsStore
from flows.cli.printing import whole_lines
from flows.config.models import load_config
from flows.errors import ConfigError, Interrupted, StageError
from flows.report.sweep_page import render_sweep
from flows.run.processes import hangup_as_termination
from flows.sweeps.grid import grid, parse_axis
from flows.sweeps.objectives import objective_axis, shared_overrides
from flows.sweeps.schedule import run_sweep
from flows.sweeps.table import group_table, member_table
from storage.digests import digest_json
from storage.opening import open_store


def sweep(
    config: Annotated[Path, typer.Argument(help="The YAML config that the members vary.", metavar="CONFIG")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUES", help="Values of a field: reid.lr=1e-4,3e-4, reid.seed=0..4."
        ),
    ] = None,
    objectives: Annotated[
        bool,
        typer.Option("--objectives", help="Also vary the re-ID objective: all that the literature compares."),
    ] = False,
    store: ConfigsStore = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Stages made at once; by default one a GPU, or one a two cores.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables and report; by default under the store's sweeps.")
    ] = None,
) -> None:
    """Run a grid of settings over one store, sharing every artifact, and rank the members by mAP."""
    console = whole_lines()
    base = load_config(config, store=store)
    axes = [parse_axis(text) for text in settings or []]
    if not axes and not objectives:
        raise ConfigError("there is nothing to vary: give --set NAME=VALUE,VALUE or --objectives")
    if objectives:
        axes.insert(0, objective_axis(base))
    members = grid(axes, shared_overrides(base) if objectives else ())
    slots = _slots(parallel, base.run.device)
    threads = max(1, (os.cpu_count() or 1) // len(slots))
    with _sigterm_as_interrupt():
        outcome = run_sweep(
            config,
            members,
            store=store,
            slots=slots,
            threads=threads,
            on_change=lambda text: console.print(text, markup=False),
        )
    names = [axis.name for axis in axes]
    table = member_table(outcome.members)
    groups = group_table(table, names)
    folder = (
        out
        or open_store(base.store).root
        / ".sweeps"
        / digest_json([str(config), *(m.name for m in members)])[:12]
    )
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "members.parquet")
    groups.to_parquet(folder / "groups.parquet")
    (folder / "report.html").write_text(render_sweep(f"Sweep of {config.name}", table, groups, names))
    _print(console, groups)
    made = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.made.items()) if count) or "nothing"
    console.print(f"{len(members)} members; made {made}; {folder}/report.html")
    if outcome.stopped:
        raise Interrupted("the sweep was stopped; run the same command again to go on from there")
    failed = [one for one in outcome.members if one.error is not None]
    if failed:
        raise StageError(
            f"{len(failed)} of {len(members)} members failed; {failed[0].member.name}: {failed[0].error}"
        )


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: running stages keep a checkpoint, and the tables are written."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with hangup_as_termination():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _slots(parallel: int | None, device: str) -> list[str | None]:
    """One slot a GPU, or one for every two cores: a member alone does not keep many more of them busy.

    Where the config names a device, slots name none, and on a GPU there is one by default.
    """
    if device != "auto":
        return [None] * (parallel or (1 if device.startswith("cuda") else _pairs_of_cores()))
    gpus = _visible_gpus()
    count = parallel or gpus or _pairs_of_cores()
    return [f"cuda:{number % gpus}" if gpus else None for number in range(count)]


def _visible_gpus() -> int:
    """How many GPUs stages can compute on: CUDA_VISIBLE_DEVICES may leave some out."""
    import torch

    return torch.cuda.device_count()


def _pairs_of_cores() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


def _print(console: Console, groups: pd.DataFrame) -> None:
    table = Table(*groups.columns, box=None, pad_edge=False)
    for row in groups.itertuples(index=False):
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)
