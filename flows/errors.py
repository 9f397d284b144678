"""Errors that end a command with one message."""

from __future__ import annotations


class ConfigError(ValueError):
    """A config, an option or an argument is wrong; the message says which field and what to do."""


class StageError(ValueError):
    """A stage could not be made because of what it was given: input, disk, settings. Not worth a retry."""


class StageDied(RuntimeError):
    """A stage's process ended by a signal or without a word: killed, or out of memory. Worth a retry."""


class StageBroke(RuntimeError):
    """A stage failed by an error of the program; its log holds the traceback."""
