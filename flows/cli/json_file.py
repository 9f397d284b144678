"""The file of `--json`: refused before the work, not after it, and written before what a person reads."""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from flows.errors import ConfigError

if TYPE_CHECKING:
    from flows.run.running import Outcome

STANDARD_OUTPUT = Path("-")
_OUTPUT: ContextVar[TextIO] = ContextVar("the standard output that is the data's alone")


def writable(path: Path | None) -> Path | None:
    """A callback for commands that print the same data anyhow: `-` is None, other paths are looked at.

    Raises ConfigError when no file can be written at `path`.
    """
    if path is None or path == STANDARD_OUTPUT:
        return None
    folder = path.absolute().parent
    if path.suffix.lower() in (".yaml", ".yml"):
        raise ConfigError(f"--json {path}: this is the name of a config; give a FILE to write, or - to print")
    if not folder.is_dir():
        raise ConfigError(f"--json {path}: there is no folder {folder}")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"--json {path}: no file can be written there")
    return path


def _file_or_output(context: typer.Context, path: Path | None) -> Path | None:
    """With `-`, standard output is the data's alone: what says the same to a person is left out."""
    if path != STANDARD_OUTPUT:
        return writable(path)
    context.with_resource(_for_data_alone())
    return path


@contextmanager
def _for_data_alone() -> Iterator[None]:
    token = _OUTPUT.set(sys.stdout)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        _OUTPUT.reset(token)


Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=_file_or_output,
        help="Also write the outcome as data to this file; - prints the data, and it alone.",
    ),
]
"""The option of every command that has data to give."""


def write_json(path: Path | None, body: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """Write data to the file of `--json`; nothing without one."""
    _write(path, [json_format.dumps(body, indent=1, default=default)])


def write_json_lines(path: Path | None, bodies: Iterable[Any]) -> None:
    """As `write_json`, one line each."""
    _write(path, [json_format.dumps(body) for body in bodies])


def _write(path: Path | None, texts: Iterable[str]) -> None:
    if path is None:
        return
    content = "".join(f"{text}\n" for text in texts)
    if path == STANDARD_OUTPUT:
        stream = _OUTPUT.get()
        stream.write(content)
        stream.flush()
    else:
        path.write_text(content, encoding="utf-8")


def give(outcome: Outcome, json: Path | None, show: Callable[[Outcome], None]) -> None:
    """Write the outcome as data, show it, and raise its error."""
    write_json(json, outcome.as_data())
    show(outcome)
    outcome.raise_error()
