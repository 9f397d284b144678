"""Medians of contenders that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flows.cli.json_file import write_json
from flows.cli.printing import plain_table, whole_lines


@dataclass(frozen=True)
class Measurement:
    """The median `seconds` over `rounds` rounds, and the `ratio` to the floor that took turns with it.

    `bound` is the promise for `value`, and `holds` whether it is kept; both are None without a promise.
    """

    group: str
    name: str
    seconds: float
    rounds: int
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def bound(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    @property
    def holds(self) -> bool | None:
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians_in_turn(
    contenders: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[], None] | None = None
) -> dict[str, float]:
    """Median seconds of each contender, called in turn once per round; `before` is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            if before:
                before()
            seconds[name].append(seconds_of(call))
    return {name: median(values) for name, values in seconds.items()}


def report(measurements: Iterable[Measurement], settings: Mapping[str, Any], json_file: Path | None) -> None:
    """Print the figures; with `json_file`, also write them there, with their settings."""
    console = whole_lines()
    table = plain_table("what", "how", "median", "figure", "promised", "")
    found = []
    with console.status("measuring"):
        for one in measurements:
            found.append(one)
            figure = f"{one.value:.3g} {one.unit}"
            console.print(f"{one.group}: {one.name}: {figure}")
            kept = "" if one.holds is None else "[green]holds[/]" if one.holds else "[red]missed[/]"
            table.add_row(one.group, one.name, f"{1000 * one.seconds:.1f} ms", figure, one.bound, kept)
    console.print(table)
    write_json(json_file, {**settings, "figures": [one.as_json() for one in found]})
