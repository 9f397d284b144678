"""The command line, in a process of its own or in this one, and how it ended."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forking import PROJECT, ForkedTemplate, Program
from tests.in_process import call_main


@dataclass(frozen=True)
class Outcome:
    """How a command ended; `data` is what --json wrote."""

    status: int
    stdout: str
    stderr: str
    data: dict[str, Any]

    @property
    def states(self) -> dict[str, str]:
        return {stage["stage"]: stage["state"] for stage in self.data["stages"]}

    def path(self, stage: str) -> Path:
        return next(Path(each["path"]) for each in self.data["stages"] if each["stage"] == stage)


def personsearch(
    *arguments: object,
    json_to: Path | None = None,
    timeout: float = 600,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run `personsearch` with these arguments and wait for its end.

    With an `environment` of its own it has an interpreter of its own, too.
    """
    words = [str(word) for word in arguments] + (["--json", str(json_to)] if json_to else [])
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder) / "stdout", Path(folder) / "stderr"
        if environment is None:
            process = begin(*words, output=output, error=error)
            try:
                status = process.wait(timeout)
            finally:
                process.kill()
        else:
            with output.open("wb") as out, error.open("wb") as err:
                status = subprocess.run(
                    command(*words), stdout=out, stderr=err, timeout=timeout, cwd=PROJECT, env=environment
                ).returncode
        return _outcome(status, output, error, json_to)


def here(*arguments: object, json_to: Path | None = None) -> Outcome:
    """As `personsearch`, but in this process, which has loaded everything, as has the template of its stages.

    For what does not depend on how a command starts and ends.
    """
    words = [str(word) for word in arguments] + (["--json", str(json_to)] if json_to else [])
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder) / "stdout", Path(folder) / "stderr"
        with _printing_to(output, error):
            status = call_main(shlex.join(words))
        return _outcome(status, output, error, json_to)


@contextmanager
def _printing_to(output: Path, error: Path) -> Iterator[None]:
    """Have this process and what it starts print into files, as a command that logs for itself."""
    kept, of_root = [os.dup(1), os.dup(2)], list(logging.root.handlers)
    logging.root.handlers.clear()
    try:
        with output.open("a") as out, error.open("a") as err, redirect_stdout(out), redirect_stderr(err):
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            yield
    finally:
        logging.root.handlers[:] = of_root
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def _outcome(status: int, output: Path, error: Path, json_to: Path | None) -> Outcome:
    data = json.loads(json_to.read_text()) if json_to and json_to.exists() else {}
    return Outcome(status, output.read_text(), error.read_text(), data)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "flows.cli.main", *map(str, words)]


def begin(*words: object, output: Path, error: Path) -> Program:
    """Start `personsearch` with these arguments; it adds what it prints to files, which may be one."""
    return Program(_main, [str(word) for word in words], output=output, error=error)


def _main(words: list[str]) -> None:
    """The command, in the process that was forked for it."""
    sys.argv = ["personsearch", *words]
    ForkedTemplate().take_its_place()

    from flows.cli.main import main

    main()
