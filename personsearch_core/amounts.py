"""How often each of several training sets comes up in an epoch: its `proportion`, `repeat` or `choose`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from personsearch_core.errors import PersonSearchError


class Amount(Protocol):
    """How much of a training set an epoch takes; one of the three is given."""

    @property
    def proportion(self) -> float | None:
        """Fraction of the epoch."""

    @property
    def repeat(self) -> float | None:
        """Passes over the set, also fractions of one."""

    @property
    def choose(self) -> int | None:
        """Number of its items."""


def check_amounts(amounts: Sequence[Amount]) -> None:
    """Raise PersonSearchError if the proportions leave no room for the sets with repeat or choose."""
    proportions = sum(amount.proportion or 0.0 for amount in amounts)
    if proportions >= 1 and any(amount.proportion is None for amount in amounts):
        raise PersonSearchError(
            f"the proportions of the training entries sum to {proportions:g}, which leaves nothing for "
            "entries with repeat or choose: they must sum to less than 1"
        )


def per_epoch(amounts: Sequence[Amount], sizes: Sequence[int]) -> tuple[int, ...]:
    """Items of each set per epoch, from the number of items that each has.

    Next to sets with repeat or choose, proportions are fractions of the whole epoch and must leave room (sum
    below 1). If all sets have proportions, only their ratios count, and an epoch has as many items as all
    sets together. Raises PersonSearchError if there is no set, or no room.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> prw = SimpleNamespace(proportion=None, repeat=1.0, choose=None)
    >>> cuhk_sysu = SimpleNamespace(proportion=0.5, repeat=None, choose=None)
    >>> per_epoch([prw, cuhk_sysu], [482, 5532])
    (482, 482)
    """
    if not amounts:
        raise PersonSearchError("training needs at least one entry")
    check_amounts(amounts)
    fixed = [_fixed(amount, size) for amount, size in zip(amounts, sizes, strict=True)]
    proportions = sum(amount.proportion or 0.0 for amount in amounts)
    total = sum(fixed) / (1 - proportions) if any(fixed) else sum(sizes) / proportions
    return tuple(
        number if amount.proportion is None else max(1, round(total * amount.proportion))
        for amount, number in zip(amounts, fixed, strict=True)
    )


def _fixed(amount: Amount, size: int) -> int:
    if amount.choose is not None:
        return amount.choose
    return 0 if amount.repeat is None else max(1, round(amount.repeat * size))
