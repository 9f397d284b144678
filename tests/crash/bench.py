"""One operation run to its death at each of its calls, and what is left judged.

It must run with the library preloaded (`tests.crash.shim.build`, LD_PRELOAD). A point is a forked process, so
that nothing is imported twice; it is forked before any thread starts. Python's own file calls and those of
pyarrow, torch and safetensors go through the library. The disk is not waited for: a flush counts and is
recorded.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import random
import shutil
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash import power, shim, states
from tests.crash.shim import Call, Kind, Mode

SECONDS = 300
"""More than any operation takes: what hangs is a fault."""

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """`prepare` makes what the operation starts from, and `run` is the operation.

    `check` looks at what a death left: it opens the store, lists, verifies, and says what is wrong. `run`
    must then succeed when it is repeated, and `outcome` be that of a run that was never cut off.
    """

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Path], None]
    check: Callable[[Path], list[str]]
    outcome: Callable[[Path], Outcome]


@dataclass
class Report:
    """What became of an operation's points."""

    calls: int = 0
    points: int = 0
    states: int = 0
    layouts: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    faults: list[str] = field(default_factory=list)
    is_quiet: bool = False

    def note(self, where: str, faults: Sequence[str]) -> None:
        """Keep the faults of a point, and print them at once unless the report is quiet."""
        for fault in faults:
            self.faults.append(f"{where}: {fault}")
            if not self.is_quiet:
                print(f"fault: {where}: {fault}", file=sys.stderr, flush=True)


def in_a_fork(work: Callable[[], Any]) -> tuple[str, Any]:
    """("done", value), ("raised", text) or ("killed", signal) of `work` in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.alarm(SECONDS)
        with contextlib.suppress(BaseException):
            try:
                answer: tuple[str, Any] = ("done", work())
            except BaseException as error:
                shim.disarm()
                answer = ("raised", "".join(traceback.format_exception(error)[-3:]))
            shim.disarm()
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(answer, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        content = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed", signal.Signals(os.WTERMSIG(status)).name
    return pickle.loads(content) if content else ("killed", "without an answer")


def load(modules: Sequence[str]) -> None:
    """Import what a fork has imported, so that no other does it again."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()  # or a collection in a fork would copy every page of this process


class Bench:
    """One operation: its template, its calls, and the outcome of a run that is not cut off."""

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation, self.folder = operation, folder
        self.template = folder / "template"
        self.number = 0
        self._must(lambda: operation.prepare(self.template))
        self.start = self.copy()
        self.disk = power.Disk.of(self.start)
        self.calls, modules = self._must(self._recorded)
        load(modules)
        self.expected = self._must(lambda: operation.outcome(self.start))

    def copy(self) -> Path:
        """A fresh folder with what the operation starts from; always at the same place."""
        place = self.folder / "state"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.template, place, symlinks=True)
        return place

    def _must(self, work: Callable[[], Any]) -> Any:
        how, value = in_a_fork(work)
        if how != "done":
            raise SystemExit(f"{self.operation.name}: it fails without being cut off: {how} {value}")
        return value

    def _recorded(self) -> tuple[list[Call], list[str]]:
        """The operation's calls, and the modules that it and a look at its outcome load."""
        log = self.folder / "log"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        before = set(sys.modules)
        shim.arm(self.start, Mode.COUNT, log=descriptor)
        self.operation.run(self.start)
        counted = shim.disarm()
        calls = list(shim.read_log(log.read_bytes()))
        assert len(calls) == counted, f"{counted} calls, {len(calls)} records"
        self.operation.check(self.start), self.operation.outcome(self.start)
        return calls, sorted(set(sys.modules) - before)

    def cut(self, mode: Mode, point: int) -> tuple[str, Path]:
        """How the operation ended when call `point` was cut off, and what it left."""
        place = self.copy()

        def work() -> None:
            shim.arm(place, mode, point)
            self.operation.run(place)

        how, value = in_a_fork(work)
        return (how if how != "raised" else f"raised {_class_of(value)}"), place

    def judge(self, place: Path, *, returned: bool = False) -> list[str]:
        """What is wrong with what was left, and with the operation repeated on it.

        After the operation has returned, its outcome must be there without repeating it.
        """
        operation = self.operation

        def look() -> list[str]:
            faults = operation.check(place)
            if not returned:
                operation.run(place)
                faults += [f"repeated: {fault}" for fault in operation.check(place)]
            found = operation.outcome(place)
            if found != self.expected:
                faults.append(f"another outcome: {found} instead of {self.expected}")
            return faults

        how, value = in_a_fork(look)
        return list(value) if how == "done" else [f"looking at it: {how}: {value}"]


def _class_of(text: str) -> str:
    return text.strip().splitlines()[-1].partition(":")[0]


def points_of(calls: Sequence[Call]) -> Iterator[tuple[Mode, int]]:
    """Every call with what may happen there.

    A death after a call is one before the next; only a write has a middle, and only it can fall short.
    """
    for point, call in enumerate(calls):
        yield Mode.BEFORE, point
        yield Mode.IO_ERROR, point
        if call.kind is not Kind.UNLINK:
            yield Mode.NO_SPACE, point
        if call.kind is Kind.WRITE and len(call.data) > 1:
            yield Mode.HALF, point
            yield Mode.SHORT, point
    if calls:
        yield Mode.AFTER, len(calls) - 1


def crash(bench: Bench, report: Report, chosen: Sequence[tuple[Mode, int]]) -> None:
    """Try the points, and judge what they leave where none before it left the same."""
    judged: dict[str, list[str]] = {}
    for mode, point in chosen:
        how, place = bench.cut(mode, point)
        report.points += 1
        report.outcomes[f"{mode.name.lower()}: {how}"] += 1
        state = states.digest(states.parts_of(place))
        if state not in judged:
            judged[state] = bench.judge(place)
            report.states += 1
        faults = [*judged[state]]
        if mode in (Mode.BEFORE, Mode.AFTER) and how != "killed":
            faults.append(f"it was not killed: {how}")
        report.note(f"{mode.name} at call {point}", faults)


def cut_power(
    bench: Bench, report: Report, points: Sequence[int], subsets: int, source: random.Random
) -> None:
    """Lay out what a cut at each of the points may leave of the recorded calls, and look at it."""
    place, seen = bench.start, set[str]()
    for layout in power.layouts(bench.disk, bench.calls, points, subsets, source):
        report.layouts += 1
        if layout.digest in seen:
            report.outcomes["power: seen before"] += 1
            continue
        seen.add(layout.digest)
        shutil.rmtree(place, ignore_errors=True)
        layout.disk.write(place)
        faults = bench.judge(place, returned=layout.returned)
        report.outcomes["power: looked at"] += 1
        report.note(f"power cut after call {layout.point}, {layout.what}", faults)
