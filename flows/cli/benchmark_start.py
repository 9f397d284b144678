"""`personsearch benchmark start`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from flows.cli.demo import demo_config
from flows.cli.json_file import writable
from flows.cli.measurements import report


def start(
    rounds: int = typer.Option(5, min=1, help="Rounds that a median is taken over."),
    folder: Path = typer.Option(Path("var"), help="Where a temporary folder is made."),
    json_file: Path | None = typer.Option(
        None, "--json", callback=writable, help="Also write the figures to this file."
    ),
) -> None:
    """Measure what commands and small runs cost beside their work, in whole processes."""
    from flows.benchmarks.start import measure_start

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-start-", dir=folder) as temporary:
        measured = measure_start(Path(temporary).absolute(), demo_config(), rounds)
        report(measured, {"rounds": rounds}, json_file)
