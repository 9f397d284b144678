"""What the benchmarks' commands have in common: options, a folder for temporary files, a way to run."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Rounds = Annotated[int, typer.Option(min=1, help="Number of rounds; medians are reported.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Folder = Annotated[Path, typer.Option(help="Folder for temporary files, on the disk to measure.")]
Work = Annotated[
    Path, typer.Argument(help="Folder of data and results; what is there is reused.", metavar="WORK")
]

VAR = Path("var")
PROGRAM = (sys.executable, "-m", "flows.cli.main")
"""The command line of this checkout, which need not be installed."""


@contextmanager
def temporary_folder(benchmark: str, inside: Path) -> Iterator[Path]:
    """A folder for the benchmark's files, absolute, that is deleted afterwards."""
    inside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"benchmark-{benchmark}-", dir=inside) as folder:
        yield Path(folder).absolute()


def chosen(option: str, names: str, known: Collection[str]) -> list[str]:
    """The names in a comma-separated option. Raises BadParameter for one that is not known."""
    wanted = names.split(",")
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise typer.BadParameter(
            f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}", param_hint=option
        )
    return wanted


def numbers(option: str, text: str, *, at_least: int = 1) -> list[int]:
    """The numbers in a comma-separated option. Raises BadParameter for anything else."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) >= at_least for part in parts):
        raise typer.BadParameter(
            f"{text!r} is not a list of whole numbers, each at least {at_least}, such as 1,4,8",
            param_hint=option,
        )
    return [int(part) for part in parts]


def run_script(main: Callable[..., None], about: str | None) -> None:
    """Run a benchmark that is a module: `about`, the module's docstring, is its help."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(help=about)(main)
    app()
