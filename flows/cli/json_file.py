"""Files that commands write, above all that of `--json`: checked before the work starts."""

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

from flows.errors import ConfigError, missing

if TYPE_CHECKING:
    from flows.run.planning import Outcome

STANDARD_OUTPUT = Path("-")
_OUTPUT: ContextVar[TextIO] = ContextVar("the standard output that is reserved for the data")


def writable(path: Path | None) -> Path | None:
    """An option callback for commands that print the same data anyway: `-` is None, other paths are checked.

    Raises ConfigError if `path` cannot be written.
    """
    if path is None or path == STANDARD_OUTPUT:
        return None
    if path.suffix.lower() in (".yaml", ".yml"):
        raise ConfigError(f"--json {path}: this is the name of a config; pass a FILE to write, or - to print")
    return _require_writable(path, "--json")


def to_write(option: str) -> Callable[[Path | None], Path | None]:
    """A callback of the option for a file to write: ConfigError, before any work, if that cannot be done."""
    return lambda path: None if path is None else _require_writable(path, option)


def _require_writable(path: Path, option: str) -> Path:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{option} {path}: {missing(folder, 'folder')}; create it, or name another")
    if path.is_dir():
        raise ConfigError(f"{option} {path}: this is a folder; name a file in it")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{option} {path}: cannot write to this file")
    return path


def _file_or_output(context: typer.Context, path: Path | None) -> Path | None:
    """With `-`, only the data goes to standard output; the readable version is suppressed."""
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
        help="Also write the outcome as JSON to this file; - prints only the JSON.",
    ),
]
"""The option of every command whose outcome is also available as data."""


def write_json(path: Path | None, body: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """Write data to the file of `--json`, if one is given."""
    if path is not None:
        _write(path, json_format.dumps(body, indent=1, default=default) + "\n")


def write_json_lines(path: Path | None, bodies: Iterable[Any]) -> None:
    """Like `write_json`, with one line per body."""
    if path is not None:
        _write(path, "".join(f"{json_format.dumps(body)}\n" for body in bodies))


def _write(path: Path, content: str) -> None:
    if path == STANDARD_OUTPUT:
        stream = _OUTPUT.get()
        stream.write(content)
        stream.flush()
    else:
        path.write_text(content, encoding="utf-8")


def give(outcome: Outcome, json: Path | None, show: Callable[[Outcome], None]) -> None:
    """Write the outcome as data, show it, and raise its error if it has one."""
    write_json(json, outcome.as_data())
    show(outcome)
    outcome.raise_error()
