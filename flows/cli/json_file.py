"""The file of `--json`: refused before the work, not after it, and written before what a person reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from flows.errors import ConfigError
from flows.running import Outcome, write_json


def writable(path: Path | None) -> Path | None:
    """An option's callback: raises ConfigError when no file can be written at `path`."""
    if path is None:
        return None
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--json {path}: there is no folder {folder}")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"--json {path}: no file can be written there")
    return path


def give(outcome: Outcome, json: Path | None, show: Callable[[Outcome], None]) -> None:
    """Write the outcome as data, show it, and raise its error."""
    if json is not None:
        write_json(json, outcome)
    show(outcome)
    outcome.raise_error()
