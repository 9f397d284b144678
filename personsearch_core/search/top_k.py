"""The rows most similar to a query, exactly: one product over all rows, then the best ones again in float32.

Where the processor multiplies bfloat16, the product is taken over a copy of the rows in it, which is the
quickest that torch has; elsewhere in float32 over small copies. How far its result may be off is known, so
that it cannot decide who is among the best: every row within that of the last place is compared again. All
after the product is NumPy's, on this thread alone: a handful of small reductions by torch's threads wait for
each other longer than one thread takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

COPIED_ROWS = 2_048
"""Rows that are converted at once: few enough to stay in the processor's cache."""
_GROUP = 64
_ROUNDING = 2.0**-8
"""Of a result in bfloat16, relative to it."""
_SUMMING = 2.0**-23
"""Of each addition in a product in float32, relative to the length of the row."""
_LEFT_OUT = np.int16(-128)
"""The bits of -inf in bfloat16."""


@dataclass(frozen=True, eq=False)
class CoarseRows:
    """A copy of rows in bfloat16, for a quick product.

    Attributes
    ----------
    rows
        (N, D) bfloat16.
    error
        The largest Euclidean distance of a row from its copy.
    longest
        The largest Euclidean norm of a row.

    Examples
    --------
    >>> copy = CoarseRows.of([torch.eye(3).half()], count=3, dimensions=3)
    >>> copy.rows.dtype, copy.error, copy.longest
    (torch.bfloat16, 0.0, 1.0)
    """

    rows: Tensor
    error: float
    longest: float

    @classmethod
    def of(cls, parts: Iterable[Tensor], count: int, dimensions: int) -> CoarseRows:
        """Copy float16 rows that come in parts (n, D), `count` in total."""
        # NumPy asks for huge pages, with which the product takes two thirds of the time.
        rows = torch.from_numpy(np.empty((count, dimensions), np.int16)).view(torch.bfloat16)
        buffers = torch.empty((2, COPIED_ROWS, dimensions))
        error, longest, start = 0.0, 0.0, 0
        for part in (piece for whole in parts for piece in whole.split(COPIED_ROWS)):
            exact, off = buffers[:, : len(part)]
            copied = rows[start : start + len(part)].copy_(exact.copy_(part))
            longest = max(longest, _longest(exact))
            error = max(error, _longest(off.copy_(copied).sub_(exact)))
            start += len(part)
        return cls(rows, error, longest)


class Similarities:
    """How similar every row is to one query; `best` gives the best rows of those that are kept.

    Parameters
    ----------
    blocks
        float16 (n, D) each, on the CPU; they may be mapped files.
    query
        (D,) float32.
    coarse
        A copy of the rows, which makes the product quicker if `multiplies_bfloat16`.

    Examples
    --------
    >>> rows = torch.eye(3).half()
    >>> found, similarity = Similarities([rows[:2], rows[2:]], torch.tensor([0.1, 0.5, 0.9])).best(2)
    >>> found.tolist(), [round(value, 3) for value in similarity.tolist()]
    ([2, 1], [0.9, 0.5])
    """

    def __init__(self, blocks: Sequence[Tensor], query: Tensor, coarse: CoarseRows | None = None) -> None:
        self._blocks = blocks
        self._query = query.float()
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])
        direction = self._query / self._query.norm().clamp(min=1e-12)
        if coarse is None:
            quick, self._error = _copied_product(blocks, direction)
        else:
            quick, self._error = _coarse_product(coarse, direction)
        self._quick: NDArray[np.int16] = quick.view(torch.int16).numpy()

    def __len__(self) -> int:
        return len(self._quick)

    def best(
        self, count: int, kept: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The most similar rows, best first, and their similarities in float32; ties in the order of rows.

        Parameters
        ----------
        count
            Fewer are given if fewer are kept.
        kept
            (N,) bool: the rows to choose from; all by default.

        Returns
        -------
        tuple of numpy.ndarray
            (k,) rows and (k,) similarities.
        """
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        quick = self._quick if kept is None else np.where(kept, self._quick, _LEFT_OUT)
        rows = _candidates(quick, count, self._error)
        similarity = self._exact(rows)
        order = np.lexsort((rows, -similarity))[:count]
        return rows[order], similarity[order]

    def _exact(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Similarities of ascending rows, in float32."""
        exact = np.empty(len(rows), np.float32)
        cuts = np.searchsorted(rows, self._starts)
        for block, start, first, last in zip(self._blocks, self._starts, cuts[:-1], cuts[1:], strict=False):
            for at in range(first, last, COPIED_ROWS):
                part = slice(at, min(at + COPIED_ROWS, last))
                own = block[torch.from_numpy(rows[part] - start)]
                exact[part] = (own.float() @ self._query).numpy()
        return exact


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor does so in hardware: then a search over `CoarseRows` is the quickest."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _coarse_product(coarse: CoarseRows, direction: Tensor) -> tuple[Tensor, float]:
    """(N,) bfloat16 and how far it may be off, beside the rounding of the result."""
    query = direction.bfloat16()
    rounded = query.float()
    length = float(rounded.norm())
    summing = _SUMMING * len(query) * (coarse.longest + coarse.error) * length
    error = coarse.error * length + coarse.longest * float((direction - rounded).norm()) + summing
    return torch.mv(coarse.rows, query), error


def _copied_product(blocks: Sequence[Tensor], direction: Tensor) -> tuple[Tensor, float]:
    """As `_coarse_product`, in float32 over small copies of the rows."""
    result = torch.empty(sum(map(len, blocks)), dtype=torch.bfloat16)
    copies = torch.empty((COPIED_ROWS, len(direction)))
    longest, start = 0.0, 0
    for part in (part for block in blocks for part in block.split(COPIED_ROWS)):
        copied = copies[: len(part)].copy_(part)
        result[start : start + len(part)] = copied @ direction
        longest = max(longest, _longest(copied))
        start += len(part)
    return result, _SUMMING * len(direction) * longest


def _longest(rows: Tensor) -> float:
    """The length of the longest of float32 rows (n, D)."""
    return float(torch.linalg.vector_norm(rows, dim=1).max()) if len(rows) else 0.0


def _candidates(quick: NDArray[np.int16], count: int, error: float) -> NDArray[np.int64]:
    """Ascending rows among which the `count` best are, however the product was rounded; none that is -inf.

    Rows are looked at in groups of 64, spread over all rows. Each of the best groups has a row as good as its
    maximum, so that the maximum of the last of them bounds the last place from below.
    """
    groups = len(quick) // _GROUP
    if count < groups:
        best = _maxima(quick[: groups * _GROUP].reshape(_GROUP, groups))
        last = np.partition(best, groups - count)[groups - count]
        bound = last - 2 * error - 2 * _ROUNDING * (abs(last) + 2 * error)
        near = np.flatnonzero(best >= bound)
        rest = np.arange(groups * _GROUP, len(quick))
        rows = np.concatenate([(near + groups * np.arange(_GROUP)[:, None]).ravel(), rest])
        rows = rows[_values(quick[rows]) >= bound]
    else:
        rows = np.arange(len(quick))
    return np.sort(rows[quick[rows] != _LEFT_OUT])


def _maxima(bits: NDArray[np.int16]) -> NDArray[np.float32]:
    """The largest bfloat16 value of each column, given by their bits.

    As integers, the bits of positive values rise with them and are above those of negative ones, which fall.
    """
    largest = bits.max(axis=0)
    negative = largest < 0
    largest[negative] = bits[:, negative].min(axis=0)
    return _values(largest)


def _values(bits: NDArray[np.int16]) -> NDArray[np.float32]:
    """The bfloat16 values that have these bits."""
    return (bits.astype(np.int32) << 16).view(np.float32)
