"""The command line in a process of its own, and how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


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
    """Run `personsearch` with these arguments and wait for its end."""
    words = [str(word) for word in arguments] + (["--json", str(json_to)] if json_to else [])
    done = subprocess.run(
        command(*words), capture_output=True, text=True, timeout=timeout, cwd=PROJECT, env=environment
    )
    data = json.loads(json_to.read_text()) if json_to and json_to.exists() else {}
    return Outcome(done.returncode, done.stdout, done.stderr, data)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "flows.cli.main", *map(str, words)]
