"""Errors that end a command with one message."""

from __future__ import annotations

import errno


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


def explain_os_error(error: OSError) -> str:
    """One line on what the operating system refused, and what to do where that is known."""
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}: free some space and run the same command again; it goes on from there"
        )
    if error.errno == errno.EROFS:
        return f"the file system is read-only{where}: choose a store that can be written (--store)"
    return f"{error.strerror or error}{where}"
