"""The command line in a process of its own, and how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forking import PROJECT, ForkedTemplate, Program


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
