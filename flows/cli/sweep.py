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
from flows.cli.printing import counted, whole_lines
from flows.config.models import load_config
from flows.errors import ConfigError, Interrupted, StageFailed
from flows.report.sweep_page import render_sweep
from flows.run.processes import hangup_as_termination
from flows.studies.grid import grid, parse_axis
from flows.studies.objectives import PRESETS, objective_axis, shared_overrides
from flows.studies.schedule import run_sweep
from flows.studies.table import group_table, member_table
from storage.digests import digest_json
from storage.opening import open_store


def sweep(
    config: Annotated[Path, typer.Argument(help="The YAML config to vary.", metavar="CONFIG")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUES",
            help="Values of a field, such as reid.lr=1e-4,3e-4 or reid.seed=0..4; repeatable.",
        ),
    ] = None,
    objectives: Annotated[
        bool,
        typer.Option(
            "--objectives",
            help=f"Also vary the re-ID loss over all that the literature compares: {'; '.join(PRESETS)}.",
        ),
    ] = False,
    store: ConfigsStore = None,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="Stages to build at once (default: one per GPU, or one per two CPU cores)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables and report (default: STORE/.sweeps/ID).")
    ] = None,
) -> None:
    """Run a grid of settings, sharing all artifacts in one store, and rank the members by mAP.

    Example: personsearch sweep configs/demo.yaml --set reid.lr=1e-4,3e-4 --set reid.seed=0..2
    """
    console = whole_lines()
    base = load_config(config, store=store)
    axes = [parse_axis(text) for text in settings or []]
    if not axes and not objectives:
        raise ConfigError("nothing to vary: give --set NAME=VALUE,VALUE or --objectives")
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
    console.print(f"{counted(len(members), 'member')}; made {made}; report: {folder}/report.html")
    if outcome.stopped:
        raise Interrupted("the sweep was stopped; run the same command again to resume")
    failures = [(one.member.name, one.failure) for one in outcome.members if one.failure is not None]
    if failures:
        name, first = failures[0]
        raise StageFailed(first.of(f"{len(failures)} of {len(members)} members failed; {name}"))


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C: running stages save a checkpoint, and the tables are written."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with hangup_as_termination():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _slots(parallel: int | None, device: str) -> list[str | None]:
    """One slot per GPU, or one per two CPU cores: a single member keeps few more of them busy.

    If the config names a device, slots do not, and a GPU gets one slot by default.
    """
    if device != "auto":
        return [None] * (parallel or (1 if device.startswith("cuda") else _pairs_of_cores()))
    gpus = _visible_gpus()
    count = parallel or gpus or _pairs_of_cores()
    return [f"cuda:{number % gpus}" if gpus else None for number in range(count)]


def _visible_gpus() -> int:
    """Number of GPUs that stages can use; CUDA_VISIBLE_DEVICES may hide some."""
    import torch

    return torch.cuda.device_count()


def _pairs_of_cores() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


def _print(console: Console, groups: pd.DataFrame) -> None:
    table = Table(*groups.columns, box=None, pad_edge=False)
    for row in groups.itertuples(index=False):
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)
