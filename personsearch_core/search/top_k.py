"""The rows most similar to a query, exactly: one product over all rows, then the best ones again in float32.

The product is taken in float16, the format of the rows, block by block, or on processors without instructions
for it in float32 over small copies. Its rounding cannot decide who is among the best: every row within it of
the last place is compared again. All after the product is NumPy's, on this thread alone: a handful of small
reductions by torch's threads wait for each other longer than one thread takes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_COPIED_ROWS = 16_384
"""Rows that are converted to float32 at once."""
_GROUP = 64
_ROUNDING = 2.0**-9
"""Of a float16 product, relative to the length of the rows: twice the error of rounding query and result."""
_MOST_COMPARED = 65536
"""Rows that are compared again for one query, beside those that are asked for."""

Product = Callable[[Tensor, Tensor, Tensor], None]
"""(rows (n, D) float16, query (D,) float32, result (n,) float16): fills the result."""


class Similarities:
    """How similar every row is to one query; `best` gives the best rows of those that are kept.

    Parameters
    ----------
    blocks
        float16 (n, D) each, on the CPU; they may be mapped files.
    query
        (D,) float32.

    Examples
    --------
    >>> rows = torch.eye(3).half()
    >>> found, similarity = Similarities([rows[:2], rows[2:]], torch.tensor([0.1, 0.5, 0.9])).best(2)
    >>> found.tolist(), [round(value, 3) for value in similarity.tolist()]
    ([2, 1], [0.9, 0.5])
    """

    def __init__(self, blocks: Sequence[Tensor], query: Tensor) -> None:
        self._blocks = blocks
        self._query = query.float()
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])
        self._quick = np.empty(int(self._starts[-1]), np.float16)
        result = torch.from_numpy(self._quick)
        product = quickest_product()
        direction = self._query / self._query.norm().clamp(min=1e-12)
        for block, start in zip(blocks, self._starts, strict=False):
            product(block, direction, result[start : start + len(block)])

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
        """
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        quick = self._quick if kept is None else np.where(kept, self._quick, np.float16(-np.inf))
        rows = _candidates(quick, count)
        similarity = self._exact(rows)
        order = np.lexsort((rows, -similarity))[:count]
        return rows[order], similarity[order]

    def _exact(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Similarities of ascending rows, in float32."""
        exact = np.empty(len(rows), np.float32)
        cuts = np.searchsorted(rows, self._starts)
        for block, start, first, last in zip(self._blocks, self._starts, cuts[:-1], cuts[1:], strict=False):
            own = block[torch.from_numpy(rows[first:last] - start)]
            exact[first:last] = (own.float() @ self._query).numpy()
        return exact


def _candidates(quick: NDArray[np.float16], count: int) -> NDArray[np.int64]:
    """Ascending rows among which the `count` best are, however the product was rounded; none that is -inf.

    Rows are looked at in groups of 64, spread over all rows. Each of the best groups has a row as good as its
    maximum, so that the maximum of the last of them bounds the last place from below. Rows are about as long
    as 1 or shorter; where they are longer, the largest maxima tell.
    """
    groups = len(quick) // _GROUP
    if count < groups:
        grouped = _ordered(quick[: groups * _GROUP]).reshape(_GROUP, groups)
        best = _values(grouped.max(axis=0))
        longest = np.abs(best[np.isfinite(best)]).max(initial=1.0)
        bound = np.partition(best, groups - count)[groups - count] - _ROUNDING * longest
        near = np.flatnonzero(best >= bound)
        rest = np.arange(groups * _GROUP, len(quick))
        rows = np.concatenate([(near + groups * np.arange(_GROUP)[:, None]).ravel(), rest])
        rows = rows[quick[rows] >= bound]
    else:
        rows = np.arange(len(quick))
    values = quick[rows].astype(np.float32)
    rows, values = rows[values > -np.inf], values[values > -np.inf]
    most = count + _MOST_COMPARED
    if len(rows) > most:
        rows = rows[np.argpartition(values, len(values) - most)[len(values) - most :]]
    return np.sort(rows)


def _ordered(values: NDArray[np.float16]) -> NDArray[np.int16]:
    """Integers in the order of float16 values, since NumPy compares halves one by one; see `_values`."""
    bits = values.view(np.int16)
    return bits ^ ((bits >> 15) & 0x7FFF)


def _values(ordered: NDArray[np.int16]) -> NDArray[np.float32]:
    """What `_ordered` was made of."""
    return _ordered(ordered.view(np.float16)).view(np.float16).astype(np.float32)


@cache
def quickest_product() -> Product:
    """The quicker product on this machine: that in float16, unless torch would emulate it."""
    if platform.machine() in ("aarch64", "arm64") or torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return half_product
    return copied_product


def half_product(rows: Tensor, query: Tensor, result: Tensor) -> None:
    """The product in float16 as torch has it; quick where the processor multiplies float16.

    The query times the rows, which oneDNN computes a third quicker than the rows times the query.
    """
    torch.mm(query.half()[None], rows.t(), out=result[None])


def copied_product(rows: Tensor, query: Tensor, result: Tensor) -> None:
    """The product in float32 over small copies of the rows."""
    copies = torch.empty((min(_COPIED_ROWS, len(rows)), rows.shape[1]))
    for first in range(0, len(rows), _COPIED_ROWS):
        part = rows[first : first + _COPIED_ROWS]
        copied = copies[: len(part)].copy_(part)
        result[first : first + len(part)] = copied @ query
