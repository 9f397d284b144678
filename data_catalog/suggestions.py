"""The known name that a misspelled one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


def near_names(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Up to `most` known names that look like the word or that it spells out (`learning_rate`: `lr`)."""
    by_letters = {name.lower(): name for name in known}
    initials = "".join(part[:1] for part in word.lower().replace("-", "_").split("_"))
    spelled = [by_letters[initials]] if len(initials) > 1 and initials in by_letters else []
    close = [by_letters[name] for name in difflib.get_close_matches(word.lower(), list(by_letters), n=most)]
    return list(dict.fromkeys([*spelled, *close]))[:most]


def did_you_mean(word: str, known: Iterable[str], most: int = 1) -> str:
    """`; did you mean 'x'?` for names that are near, or an empty text."""
    near = near_names(word, known, most)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def near_file(path: Path) -> str:
    """`did_you_mean` for a path that does not exist, among the names beside it."""
    try:
        return did_you_mean(path.name, (each.name for each in path.parent.iterdir()))
    except OSError:  # its folder does not exist either, or cannot be read
        return ""
