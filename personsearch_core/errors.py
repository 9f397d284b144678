"""The error of this package: unusable input, and what to do about it; names that may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PersonSearchError(ValueError):
    """Unusable input. The message says what is wrong, where, and what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, whatever its case, or an empty text."""
    by_letters = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_letters), n=1)
    return f"; did you mean {by_letters[near[0]]!r}?" if near else ""
