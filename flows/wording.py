"""How counts, lists, spans of time and artifacts are written for people."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str, many: str = "") -> str:
    """`1 artifact`, `2 artifacts`; `many` for other plurals."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def first_few(texts: Sequence[str], shown: int = 3) -> str:
    """`a, b, c and 4 more`."""
    more = len(texts) - shown
    return ", ".join(texts[:shown]) + (f" and {more} more" if more > 0 else "")


def duration(seconds: float) -> str:
    """12.3 s, 2 min 05 s, 1 h 18 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def about(seconds: float) -> str:
    """For a guess: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def short_name(name: str) -> str:
    """`kind/key` with the beginning of the key, which is enough to name the artifact."""
    kind, _, key = name.partition("/")
    return f"{kind}/{key[:12]}"
