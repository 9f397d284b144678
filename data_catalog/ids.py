"""The one lenient reader of numbers and identities: exporters write 1 as `1.0`, `"1"` or `1.000e+00`."""

from __future__ import annotations

import math
import re
from typing import Any

_WRITTEN_AS_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")
_NEGATIVE = re.compile(r"-\s*\d")
LARGEST_SIDE = 1 << 24
LARGEST = 1 << 53
"""Whole numbers beyond it cannot be told apart as floats."""


def number(value: Any) -> float:
    """Read a finite number from a number or from its text.

    Parameters
    ----------
    value
        An int, a float or text; a bool is not a number.

    Returns
    -------
    float
        The number.

    Raises
    ------
    ValueError
        If it is anything else, NaN or infinite.

    Examples
    --------
    >>> number("1.5e1")
    15.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    try:
        read = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{str(value)[:40]!r} is not a number") from None
    if not math.isfinite(read):
        raise ValueError(f"{str(value)[:40]!r} is not a finite number")
    return read


def whole(value: Any) -> int:
    """Read a whole number, however an exporter wrote it.

    Parameters
    ----------
    value
        An int, a float or text, such as `1`, `1.0`, `"1"` or `"1.000e+00"`.

    Returns
    -------
    int
        The number.

    Raises
    ------
    ValueError
        If it is not a whole number.

    Examples
    --------
    >>> whole("1.000e+00")
    1
    """
    if type(value) is int:
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass  # perhaps a whole number that is written as a float
    read = number(value)
    if not read.is_integer() or abs(read) > LARGEST:
        raise ValueError(f"{str(value)[:40]!r} is not a whole number")
    return int(read)


def whole_below(value: Any, limit: int, *, minimum: int = 0) -> int | None:
    """A whole number from `minimum` to below the limit, however it is written; None for anything else."""
    try:
        found = whole(value)
    except ValueError:
        return None
    return found if minimum <= found < limit else None


def side(value: Any) -> int | None:
    """A stated width or height in pixels; None if it is missing, damaged, or 0 as some exporters write it."""
    return whole_below(value, LARGEST_SIDE, minimum=1)


def four_numbers(value: Any, name: str) -> list[float]:
    """The numbers of a box.

    Raises:
        ValueError: when it is not a list of four.
    """
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"{name} is not a list of four numbers")
    return [number(each) for each in value]


def identity(value: Any) -> str | None:
    """Read a person's identity.

    Null, NaN, blank text and negative numbers mean an unknown person in every format. A whole number is one
    identity however it is written (7, 7.0, "7.0"); other text is kept as it is: "0007" is not "7", and "1e3"
    may be part of a hash.

    Parameters
    ----------
    value
        An identity as a file gives it.

    Returns
    -------
    str or None
        The identity as the catalog stores it; None for an unknown person.

    Raises
    ------
    ValueError
        If it cannot be an identity: a list, true, 7.5.

    Examples
    --------
    >>> identity(7.0), identity("0007"), identity(-1)
    ('7', '0007', None)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        text = value.strip()
        if _WRITTEN_AS_FLOAT.fullmatch(text):
            return identity(number(text))
        if not text or text.lower() == "nan" or _NEGATIVE.match(text):
            return None
        return text.encode("utf-8", "replace").decode()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:40]!r} is not an identity")
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value!r} is not an identity")
    return None if value < 0 else str(int(value))
