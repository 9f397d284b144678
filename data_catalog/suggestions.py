"""The known name that a misspelled one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


def near_names(word: str, known: Iterable[str]) -> list[str]:
    """The known name that the word spells out (`learning_rate`: `lr`), or else looks like; at most one."""
    by_letters = {name.lower(): name for name in known}
    initials = "".join(part[:1] for part in word.lower().replace("-", "_").split("_"))
    spelled = [by_letters[initials]] if len(initials) > 1 and initials in by_letters else []
    close = [by_letters[name] for name in difflib.get_close_matches(word.lower(), list(by_letters), n=1)]
    return [*spelled, *close][:1]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a name that is near, or an empty text."""
    return "".join(f"; did you mean {near!r}?" for near in near_names(word, known))


def near_file(path: Path) -> str:
    """`did_you_mean` for a path that does not exist, among the names beside it."""
    try:
        return did_you_mean(path.name, (each.name for each in path.parent.iterdir()))
    except OSError:  # its folder does not exist either, or cannot be read
        return ""
