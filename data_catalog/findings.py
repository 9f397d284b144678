"""What a check reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

EXAMPLES = 3

Level = Literal["note", "warning"]


@dataclass(frozen=True)
class Finding:
    """One kind of oddity: how often, where for example, and whether it would spoil a result."""

    level: Level
    code: str
    count: int
    message: str


def finding(
    level: Level,
    code: str,
    examples: pa.ChunkedArray | Sequence[str],
    what: str,
    count: int | None = None,
) -> Finding:
    """A finding whose message counts the oddities and names the first; `count` is that of `examples` unless
    given.
    """
    number = len(examples) if count is None else count
    first = (
        examples.slice(0, EXAMPLES).to_pylist()
        if isinstance(examples, pa.ChunkedArray)
        else examples[:EXAMPLES]
    )
    shown = ", ".join(str(name) for name in first)
    return Finding(level, code, number, f"{number:,} {what}" + (f": {shown}" if shown else ""))


def present(findings: Sequence[Finding]) -> list[Finding]:
    """Those that occur, warnings first."""
    found = [each for each in findings if each.count]
    return sorted(found, key=lambda each: (each.level != "warning", each.code))
