"""Errors that end a command with one message, and `Failure`: how work ended without a result."""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal


class ConfigError(ValueError):
    """A config, an option or an argument is wrong; the message says which field and what to do."""


class StageError(ValueError):
    """A stage could not be made because of what it was given: input, disk, settings. Not worth a retry."""


class Interrupted(RuntimeError):
    """Work stopped at a checkpoint because it was asked to; the same command resumes there."""


FailureKind = Literal["refused", "unreachable", "broke", "died", "interrupted"]
"""refused: bad input, settings or disk. unreachable: a service did not answer. broke: an internal error.
died: the process was killed, or ran out of memory. interrupted: asked to stop, or past its time limit."""

EXIT_STATUS: dict[FailureKind, int] = {
    "refused": 2,
    "unreachable": 2,
    "broke": 1,
    "died": 1,
    "interrupted": 75,  # EX_TEMPFAIL: the same command can resume
}


@dataclass(frozen=True)
class Failure:
    """Why work ended without a result: the same value from where it failed to records and the screen.

    `log` is the file with the output of the stage's process; None if no process was started.
    """

    kind: FailureKind
    message: str
    log: str | None = None

    def __str__(self) -> str:
        if self.log is None or self.kind == "interrupted":
            return self.message
        return f"{self.message}; log: {self.log}"

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.kind]

    @property
    def is_worth_retrying(self) -> bool:
        """Whether the same work may well succeed next time."""
        return self.kind in ("died", "unreachable")

    def of(self, name: str) -> Failure:
        """The same failure with the name of what failed before its message."""
        return replace(self, message=f"{name}: {self.message}")


class StageFailed(RuntimeError):
    """A stage ended without a result."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def failure_of(error: BaseException) -> Failure | None:
    """How an error ends the work; None for a bug, whose traceback is worth more than one line."""
    if isinstance(error, StageFailed):
        return error.failure
    if isinstance(error, Interrupted):
        return Failure("interrupted", str(error))
    message = explain(error)
    if message is None:
        return None
    return Failure("unreachable" if isinstance(error, ConnectionError | TimeoutError) else "refused", message)


def failure_or_bug(error: BaseException) -> Failure:
    """As `failure_of`; a bug is told by its class and message."""
    return failure_of(error) or Failure("broke", f"{type(error).__name__}: {error}")


_ROOMS = {"flows", "personsearch_core", "data_catalog", "storage"}


def explain(error: BaseException) -> str | None:
    """One line for an error that is about what was given (input, settings, disk); None for a bug."""
    said = _explained(error)
    if said is None:
        return None
    # What libraries say, and what is quoted from files, may have several lines, or any length.
    line = " ".join(part.strip() for part in said.splitlines() if part.strip())
    return line if len(line) <= 2_000 else f"{line[:1_400]} ... {line[-500:]}"


def _explained(error: BaseException) -> str | None:
    if is_disk_full(error):
        return DISK_FULL
    if isinstance(error, OSError):
        return explain_os_error(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {error}; lower the batch size or the memory budget"
    if isinstance(error, ValueError) and type(error).__module__.partition(".")[0] in _ROOMS:
        return str(error)
    return None


DISK_FULL = "the disk is full: free some space and run the same command again to resume"

# Libraries that write files themselves wrap the system's error in one of their own.
_FULL_IN_WORDS = re.compile(
    r"no space left|os error 28|disk is full|PytorchStreamWriter failed writing", re.I
)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if _FULL_IN_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def explain_os_error(error: OSError) -> str:
    """One line on what the operating system refused, and what to do where that is known."""
    where = f" at {error.filename}" if error.filename else ""
    if is_disk_full(error):
        return DISK_FULL
    if error.errno == errno.ENOENT and error.filename:
        return f"{missing(error.filename)}: check the path"
    if isinstance(error, socket.gaierror):
        return f"the server's name is not known ({error.strerror}): check the address that was given"
    host = getattr(error, "host", None)  # of HTTP clients, which do not name it in their message
    if isinstance(error, ConnectionError | OSError) and isinstance(host, str):
        return f"cannot reach {host} ({error.strerror or error}): check the address that was given"
    if error.errno == errno.EROFS:
        return f"the file system is read-only{where}: choose a store that can be written (--store)"
    return f"{error.strerror or error}{where}"


def missing(path: str | Path, what: str = "") -> str:
    """What every message says of a file, a folder or a store (`what`) that is not there."""
    return f"{what} {path} does not exist".lstrip()


RETRY_DELAYS = [5.0, 30.0]
"""Seconds before the second try, and before the third."""
