"""Errors that the science raises for input it cannot use."""

from __future__ import annotations


class PersonSearchError(ValueError):
    """Something that was given is wrong; the message says what, where, and what to do."""
