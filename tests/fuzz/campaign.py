"""Runs a target's attempts in forked processes and gathers what is wrong with how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.edits import OUTSIDE, Edit, Edits, Tree, lay_out
from tests.fuzz.limits import bound, tried
from tests.fuzz.target import Target
from tests.memory import folder_in_memory

EXAMPLES_PER_PROCESS = 1_000
MOST_DEATHS = 25
"""A campaign of a target ends after this many: each costs its time limit."""
_MOST_FILES = 30
"""Open files that a process may gain, for caches."""


@dataclass(frozen=True)
class Finding:
    """An input and what is wrong with how it ends."""

    target: str
    fault: str
    edits: Edits

    def as_line(self) -> str:
        body = {"target": self.target, "fault": self.fault, "edits": [edit.as_data() for edit in self.edits]}
        return json.dumps(body)

    @classmethod
    def of_line(cls, line: str) -> Finding:
        body = json.loads(line)
        return cls(body["target"], body["fault"], tuple(Edit.of(edit) for edit in body["edits"]))


@dataclass
class Outcome:
    """Attempts of a campaign; findings by fault, each with the shortest input that was seen."""

    executions: int = 0
    seconds: float = 0.0
    next_seed: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        known = self.findings.get(finding.fault)
        if known is None or len(finding.as_line()) < len(known.as_line()):
            self.findings[finding.fault] = finding


def fuzz(
    target: Target, *, first_seed: int, seconds: float | None = None, examples: int | None = None
) -> Outcome:
    """Try inputs for so long, or so many; an unfinished process is one seed."""
    outcome, deaths, started = Outcome(next_seed=first_seed), 0, time.monotonic()
    with _workplace(target) as place:
        fault = place.run_all([()])[0]
        if fault is not None:
            raise SystemExit(f"{target.name}: the valid input: {fault}")
        until = None if seconds is None else started + seconds
        while deaths < MOST_DEATHS:
            left = EXAMPLES_PER_PROCESS if examples is None else examples - outcome.executions
            if left <= 0 or (until is not None and time.monotonic() >= until):
                break
            done, findings, died = place.run_drawn(outcome.next_seed, min(left, EXAMPLES_PER_PROCESS), until)
            outcome.executions += done
            outcome.next_seed += 1
            deaths += died
            for finding in findings:
                outcome.add(finding)
            if done < min(left, EXAMPLES_PER_PROCESS) and not died and examples is not None:
                break  # the strategy has no more
    outcome.seconds = time.monotonic() - started
    return outcome


def retried(target: Target, findings: Iterable[Finding]) -> list[Finding]:
    """Those of earlier findings that still are; with the fault of today."""
    known = list(findings)
    with _workplace(target) as place:
        faults = place.run_all([finding.edits for finding in known])
    return [
        Finding(target.name, fault, finding.edits)
        for finding, fault in zip(known, faults, strict=True)
        if fault is not None
    ]


@contextmanager
def _workplace(target: Target) -> Iterator[_Workplace]:
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=folder_in_memory()) as folder:
        work = Path(folder)
        # In a child, since some libraries start threads that a fork loses.
        _in_child(lambda: (work / "tree").write_bytes(pickle.dumps(target.tree)), work)
        tree: Tree = pickle.loads((work / "tree").read_bytes())
        lay_out(tree, work / "pristine", ())
        yield _Workplace(target, tree, work)


@dataclass(frozen=True)
class _Workplace:
    target: Target
    tree: Tree
    work: Path

    def run_all(self, inputs: list[Edits]) -> list[str | None]:
        """What is wrong with each of some inputs; None where nothing is."""
        faults: list[str | None] = []
        while len(faults) < len(inputs):
            rest = inputs[len(faults) :]
            notes = self.work / "faults"
            notes.write_text("")

            def child(rest: list[Edits] = rest, notes: Path = notes) -> None:
                bound()
                for edits in rest:
                    fault = self._attempt(edits)
                    with notes.open("a") as file:
                        file.write(json.dumps(fault) + "\n")

            ended = _in_child(child, self.work, may_fail=True)
            faults += [json.loads(line) for line in notes.read_text().splitlines()]
            if ended:
                faults.append(ended)
        return faults

    def run_drawn(self, number: int, count: int, until: float | None) -> tuple[int, list[Finding], bool]:
        """Inputs drawn from a seed: how many were tried, what was found, whether the process died of one."""
        notes, current, counter = (self.work / name for name in ("findings", "current", "count"))
        notes.write_text("")
        counter.write_text("0")

        def child() -> None:
            bound()
            done, open_files = 0, 0

            @seed(number)
            @settings(
                max_examples=count,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(self.target.inputs(self.tree))
            def one(edits: Edits) -> None:
                nonlocal done, open_files
                if done >= count or (until is not None and time.monotonic() >= until):
                    os._exit(0)
                current.write_text(Finding(self.target.name, "", edits).as_line())
                fault = self._attempt(edits)
                done += 1
                counter.write_text(str(done))
                now = len(list(Path("/proc/self/fd").iterdir()))
                open_files = open_files if done > 20 else now
                if fault is None and now > open_files + _MOST_FILES:
                    fault, open_files = f"{now - open_files} files stay open", now
                if fault is not None:
                    with notes.open("a") as file:
                        file.write(self._shortened(fault, edits).as_line() + "\n")

            one()

        ended = _in_child(child, self.work, may_fail=True)
        findings = [Finding.of_line(line) for line in notes.read_text().splitlines()]
        done = int(counter.read_text() or 0)
        if ended:
            done += 1
            findings.append(Finding(self.target.name, ended, Finding.of_line(current.read_text()).edits))
        return done, findings, bool(ended)

    def _attempt(self, edits: Edits) -> str | None:
        base = self.work / "base"
        shutil.rmtree(base, ignore_errors=True)
        outside = base / OUTSIDE
        outside.mkdir(parents=True)
        (outside / "secret.jpg").write_bytes(b"secret")
        lay_out(self.tree, base / "input", edits, self.work / "pristine")
        fault = tried(self.target.attempt, base / "input", self.target.cpu_seconds)
        if fault is None and [(path.name, path.read_bytes()) for path in outside.iterdir()] != [
            ("secret.jpg", b"secret")
        ]:
            fault = "wrote outside its folder"
        return None if fault is None else fault.replace(str(base), "...")

    def _shortened(self, fault: str, edits: Edits) -> Finding:
        """The finding with one of its edits, if that is enough."""
        if len(edits) > 1:
            for edit in edits:
                if self._attempt((edit,)) == fault:
                    return Finding(self.target.name, fault, (edit,))
        return Finding(self.target.name, fault, edits)


def _in_child(do: Callable[[], Any], work: Path, *, may_fail: bool = False) -> str | None:
    """Do something in a forked process without output; which bound or signal ended it, or None."""
    sys.stdout.flush()
    sys.stderr.flush()
    said = work / "said"
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            do()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, waited = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has started
    if os.WIFSIGNALED(waited):
        name = signal.Signals(os.WTERMSIG(waited)).name
        ended = {"SIGXCPU": "used too much CPU", "SIGALRM": "did not end"}.get(name, f"died of {name}")
        if not may_fail:
            raise SystemExit(f"{ended}\n{said.read_text(errors='replace')[-3000:]}")
        return ended
    if os.WEXITSTATUS(waited):
        raise SystemExit(said.read_text(errors="replace")[-3000:])
    return None
