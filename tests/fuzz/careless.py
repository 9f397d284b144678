"""A reader that does what none may do, as the corpus tells it, to see that it is noticed."""

from __future__ import annotations

import os
from pathlib import Path

from flows.errors import ConfigError
from tests.fuzz.edits import OUTSIDE
from tests.fuzz.target import Target


def _write(folder: Path) -> None:
    (folder / "what.txt").write_text("nothing")


def _do(folder: Path) -> None:
    sin = (folder / "what.txt").read_text()
    if sin == "silent":
        raise ConfigError("")
    if sin == "traceback":
        raise KeyError(sin)
    if sin == "memory":
        bytearray(16 << 30)
    if sin == "outside":
        (folder.parent / OUTSIDE / "secret.jpg").read_bytes()
    if sin == "died":
        os.abort()
    while sin == "endless":
        pass


TARGETS = [Target("careless", _write, _do, cpu_seconds=1)]
FAULTS = (
    "a failure without a message",
    "KeyError",
    "asked for too much memory",
    "touched",
    "used too much CPU",
    "died of SIGABRT",
)
