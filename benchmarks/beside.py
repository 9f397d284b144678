"""This version's benchmarks beside another's: `python -m benchmarks.beside CHECKOUT [--only reid,store]`.

CHECKOUT is of another version and has a `.venv` of its own. Both run each benchmark in turn, so that a busy
machine slows both alike. A figure holds if the median over the pairs of its ratio, seconds here by seconds
there, is within 5 %, or within the spread of the other version against itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.options import chosen, run_script
from flows.cli.json_file import Json, write_json
from flows.cli.printing import plain_table, whole_lines

HERE = Path(__file__).resolve().parents[1]
ALLOWED = 1.05
SIZES = {
    "store": ["--rows", "2048", "--rounds", "3"],
    "extraction": ["--rounds", "3"],
    "reid": ["--rounds", "1"],
    "speed": ["--rounds", "1"],
}
"""The benchmarks that two versions have in common, and how much of each one pair runs."""

_Figures = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Compared:
    """One figure: the ratios of its pairs, and how far the other's own runs lie apart."""

    benchmark: str
    group: str
    name: str
    ratio: float
    spread: float

    @property
    def holds(self) -> bool:
        return self.ratio <= max(ALLOWED, self.spread)


def compare(benchmark: str, figures: Sequence[tuple[_Figures, _Figures]]) -> list[Compared]:
    """The figures that both measure, in the order in which the benchmark prints them.

    Parameters
    ----------
    figures
        For each pair the `figures` of this version and of the other, as the benchmark's JSON file has them.

    Raises
    ------
    ValueError
        If the two have no figure of one name.
    """
    pairs = [
        tuple({(one["group"], one["name"]): one["seconds"] for one in side} for side in pair)
        for pair in figures
    ]
    ours, theirs = pairs[0]
    found = []
    for group, name in (each for each in ours if each in theirs):
        here, there = ([pair[side][group, name] for pair in pairs] for side in (0, 1))
        ratios = [mine / other for mine, other in zip(here, there, strict=True)]
        spread = max(there) / median(there)
        found.append(Compared(benchmark, group, name, median(ratios), spread))
    if not found:
        raise ValueError(f"{benchmark}: the other checkout measures none of {len(ours)} figures")
    return found


def _run(checkout: Path, benchmark: str, folder: Path) -> _Figures:
    written = folder / "figures.json"
    words = [*SIZES[benchmark], "--json", str(written)]
    words += [] if benchmark == "speed" else ["--folder", str(folder)]
    subprocess.run(
        [str(checkout / ".venv" / "bin" / "personsearch"), "benchmark", benchmark, *words],
        cwd=checkout,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return figures_of(benchmark, json.loads(written.read_text()))


def figures_of(benchmark: str, written: Any) -> _Figures:
    """The figures of a benchmark from its JSON; that of `speed` is a list with an entry per case."""
    if benchmark != "speed":
        return list(written["figures"])
    return [
        {
            "group": f"{each['images']} images of {each['people']} people",
            "name": each["variant"],
            "seconds": each["seconds"],
        }
        for each in written
    ]


def _print(found: Sequence[Compared], pairs: int) -> None:
    table = plain_table("benchmark", "what", "how", f"median of {pairs}", "spread of the other", "")
    for one in found:
        row = (one.benchmark, one.group, one.name, f"{one.ratio:.3f} x", f"{one.spread:.3f} x")
        table.add_row(*row, "holds" if one.holds else "slower")
    whole_lines().print(table)


def main(
    other: Annotated[Path, typer.Argument(help="Checkout of the other version, with its .venv.")],
    only: Annotated[str, typer.Option(help="Benchmarks, comma-separated.")] = ",".join(SIZES),
    pairs: Annotated[int, typer.Option(min=1, help="How often both run, in turn.")] = 5,
    json_file: Json = None,
) -> None:
    """Compare the speed of two versions."""
    figures: list[dict[str, Any]] = []
    for benchmark in chosen("--only", only, SIZES):
        pairs_of = []
        for number in range(pairs):
            with tempfile.TemporaryDirectory(dir=HERE / "var") as folder:
                ours, theirs = (_run(each, benchmark, Path(folder)) for each in (HERE, other.resolve()))
            pairs_of.append((ours, theirs))
            print(f"{benchmark}: pair {number + 1} of {pairs}", file=sys.stderr)
        found = compare(benchmark, pairs_of)
        _print(found, pairs)  # each takes long: what has ended is told
        figures += (vars(one) | {"holds": one.holds} for one in found)
    write_json(json_file, {"pairs": pairs, "figures": figures})


if __name__ == "__main__":
    run_script(main, __doc__)
