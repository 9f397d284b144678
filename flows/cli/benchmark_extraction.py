"""`personsearch benchmark extraction`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from flows.cli.json_file import Json
from flows.cli.measurements import report
from flows.config.devices import torch_device


def extraction(
    shards: int = typer.Option(1, min=1, help="Shards to extract: 32 images of 8 people each."),
    rounds: int = typer.Option(5, min=1, help="Rounds that a median is taken over."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1 ..."),
    folder: Path = typer.Option(Path("var"), help="Where a temporary folder is made: the disk to write to."),
    json_file: Json = None,
) -> None:
    """Measure the extraction of features against decoding and the shared blocks' forward alone."""
    from flows.benchmarks.extraction import ExtractionBenchmark, measure_extraction

    on = torch_device(device)
    size = ExtractionBenchmark(shards=shards, rounds=rounds, device=on)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-extraction-", dir=folder) as temporary:
        settings = {"shards": shards, "rounds": rounds, "device": str(on)}
        report(measure_extraction(Path(temporary), size), settings, json_file)
