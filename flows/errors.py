"""Errors that end a command with one message."""

from __future__ import annotations

import errno
import re


class ConfigError(ValueError):
    """A config, an option or an argument is wrong; the message says which field and what to do."""


class StageError(ValueError):
    """A stage could not be made because of what it was given: input, disk, settings. Not worth a retry."""


class StageDied(RuntimeError):
    """A stage's process ended by a signal or without a word: killed, or out of memory. Worth a retry."""


class StageBroke(RuntimeError):
    """A stage failed by an error of the program; its log holds the traceback."""


class Interrupted(RuntimeError):
    """A stage stopped at a checkpoint because it was asked to; the same command goes on from there."""


_ROOMS = {"flows", "personsearch_core", "data_catalog", "storage"}


def explain(error: BaseException) -> str | None:
    """One line for an error that is about what was given (input, settings, disk); None for a bug."""
    if is_disk_full(error):
        return DISK_FULL
    if isinstance(error, OSError):
        return explain_os_error(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {error}; lower the batch size or the memory budget"
    if isinstance(error, ValueError) and type(error).__module__.partition(".")[0] in _ROOMS:
        return str(error)
    return None


DISK_FULL = "the disk is full: free some space and run the same command again; it goes on from there"

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
    if error.errno == errno.EROFS:
        return f"the file system is read-only{where}: choose a store that can be written (--store)"
    return f"{error.strerror or error}{where}"


RETRY_DELAYS = [5.0, 30.0]
"""Seconds before the second try, and before the third."""


def is_worth_retrying(error: object) -> bool:
    """Whether the same stage may well succeed next time: its process was killed, or a service was away."""
    return isinstance(error, StageDied | ConnectionError)
