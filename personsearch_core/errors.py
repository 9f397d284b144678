"""The error of this package: unusable input, and what to do about it."""

from __future__ import annotations


class PersonSearchError(ValueError):
    """Unusable input. The message says what is wrong, where, and what to do."""
