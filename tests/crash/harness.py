"""Runs every operation to its death at each of its calls, and looks at what is left: see `bench`.

    python -m tests.crash.harness [--operations NAME ...] [--share I/N] [--sample N] [--power]
        [--cuts N] [--requests] --json OUT

It must run with the library preloaded (`tests.crash.shim.build`, LD_PRELOAD).
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.crash.bench import Bench, Operation, Report, crash, cut_power, in_a_fork, points_of
from tests.crash.forget_operation import FORGET
from tests.crash.index_operations import INDEX
from tests.crash.judging_operation import JUDGEMENTS
from tests.crash.operations import CARELESS, OPERATIONS
from tests.memory import folder_in_memory

if TYPE_CHECKING:
    from tests.crash.requests import Cut, RemoteBench

SUBSETS = 200
_NEIGHBOURS = 10
_LIGHT = {each.name: each for each in (*OPERATIONS.values(), FORGET, INDEX, JUDGEMENTS, CARELESS)}
_WITH_TORCH = "checkpoints"
"""It comes last: to fork a process that has loaded torch takes several times longer."""
LOCAL = (*OPERATIONS, FORGET.name, INDEX.name, JUDGEMENTS.name, _WITH_TORCH)
EVERY = (*LOCAL, CARELESS.name)
Point = TypeVar("Point")


def operation_of(name: str) -> Operation:
    """The operation of one of the names of EVERY."""
    if name == _WITH_TORCH:
        from tests.crash.checkpoint_operation import CHECKPOINTS

        return CHECKPOINTS
    return _LIGHT[name]


def crash_requests(bench: RemoteBench, report: Report, chosen: Sequence[tuple[Cut, int]]) -> None:
    """Like `crash`, on object storage."""
    for cut, point in chosen:
        how, faults = bench.cut(cut, point)
        report.points += 1
        report.outcomes[f"{cut.name.lower()}: {how}"] += 1
        report.note(f"request {point}, {cut.value}", faults)
    report.states = len(bench.judged)


@dataclass(frozen=True)
class Campaign:
    """Which points this process tries: its share of all, or of each operation `sample` at random.

    With `power`, the power is cut instead of a death; with `cuts`, also or only after that many random calls.
    """

    index: int
    n_shares: int
    sample: int | None
    power: bool
    cuts: int
    subsets: int
    seed: int

    def local(self, names: Sequence[str]) -> Iterator[tuple[str, Report]]:
        for name in names:
            with tempfile.TemporaryDirectory(dir=folder_in_memory()) as folder:
                bench = Bench(operation_of(name), Path(folder))
                report = Report(len(bench.calls))
                source = random.Random(f"{self.seed} {name}")
                if not self.power:
                    crash(bench, report, self._share(list(points_of(bench.calls)), source))
                if self.power or self.cuts:
                    cut_power(bench, report, self._cuts(len(bench.calls), source), self.subsets, source)
            yield name, report

    def remote(self) -> Iterator[tuple[str, Report]]:
        from tests.crash.remote_operations import REMOTE
        from tests.crash.requests import RemoteBench, server

        with server() as bucket, tempfile.TemporaryDirectory(dir=folder_in_memory()) as folder:
            for name, operation in REMOTE.items():
                bench = RemoteBench(operation, bucket, Path(folder), in_a_fork)
                report = Report(len(bench.methods))
                chosen = self._share(list(bench.points()), random.Random(f"{self.seed} {name}"))
                crash_requests(bench, report, chosen)
                yield name, report

    def _share(self, points: list[Point], source: random.Random) -> list[Point]:
        if self.sample is not None:
            return source.sample(points, min(self.sample, len(points)))
        return [point for n, point in enumerate(points) if self._is_mine(n)]

    def _cuts(self, n_calls: int, source: random.Random) -> list[int]:
        """After how many calls to cut the power; in a sample, after all of them always."""
        if self.cuts:
            return [*source.sample(range(n_calls), min(self.cuts, n_calls)), n_calls]
        return [n for n in range(n_calls + 1) if self._is_mine(n)]

    def _is_mine(self, number: int) -> bool:
        """A share is made of neighbours, since much of what they leave is the same."""
        return number // _NEIGHBOURS % self.n_shares == self.index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", nargs="*", choices=EVERY, default=list(LOCAL))
    parser.add_argument("--share", default="0/1", help="This process's part of the points: I/N.")
    parser.add_argument("--sample", type=int, help="Points per operation, at random; default: all.")
    parser.add_argument("--power", action="store_true", help="Cut the power instead.")
    parser.add_argument("--cuts", type=int, default=0, help="Cut it, too, after so many calls at random.")
    parser.add_argument("--requests", action="store_true", help="Also those on object storage.")
    parser.add_argument("--subsets", type=int, default=SUBSETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", action="store_true", help="Print a line after each operation.")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    logging.disable()
    warnings.simplefilter("ignore")
    index, n_shares = map(int, asked.share.split("/"))
    campaign = Campaign(index, n_shares, asked.sample, asked.power, asked.cuts, asked.subsets, asked.seed)
    reports = {}
    light = [name for name in asked.operations if name in _LIGHT]
    heavy = [name for name in asked.operations if name not in _LIGHT]
    requests = campaign.remote() if asked.requests else ()
    started = time.monotonic()
    for name, report in chain(campaign.local(light), requests, campaign.local(heavy)):
        reports[name] = vars(report)
        asked.json.write_text(json.dumps(reports, indent=1))
        if asked.progress:
            seconds = time.monotonic() - started
            print(f"{seconds:4.0f} s: share {asked.share} of {name} is done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
