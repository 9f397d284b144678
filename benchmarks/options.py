"""What the benchmarks' commands have in common: options, and a folder for temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Rounds = Annotated[int, typer.Option(min=1, help="Number of rounds; medians are reported.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Folder = Annotated[Path, typer.Option(help="Folder for temporary files, on the disk to measure.")]

VAR = Path("var")


@contextmanager
def temporary_folder(benchmark: str, inside: Path) -> Iterator[Path]:
    """A folder for the benchmark's files, absolute, that is deleted afterwards."""
    inside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"benchmark-{benchmark}-", dir=inside) as folder:
        yield Path(folder).absolute()
