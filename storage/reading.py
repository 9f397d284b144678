"""Reads small files that may come from anywhere: regular ones only, and JSON of a bearable depth."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from stat import S_ISREG
from typing import Any

from pydantic import ValidationError


def require_regular(file: Path) -> None:
    """Raise OSError for a pipe or a device, which may never end, and for what is not there."""
    if not S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(file))


def read_regular(file: Path) -> bytes:
    """The bytes of a regular file; raises OSError for any other."""
    require_regular(file)
    return file.read_bytes()


def parse_json(text: bytes | str) -> Any:
    """The value of JSON text. Raises ValueError when it is not JSON, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def first_problem(error: ValidationError) -> str:
    """On one line, the first thing that does not fit a model: where, and why."""
    first = error.errors()[0]
    where = [".".join(map(str, first["loc"]))] if first["loc"] else []
    return " ".join(": ".join([*where, first["msg"]]).split())
