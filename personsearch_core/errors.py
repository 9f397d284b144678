"""The error of this package: input that cannot be used, and what to do about it."""

from __future__ import annotations


class PersonSearchError(ValueError):
    """Input that cannot be used. The message says what is wrong, where, and what to do."""
