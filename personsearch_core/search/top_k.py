"""The rows most similar to a query, exactly: one product over all rows, then the best ones again in float32.

The product is taken in float16, the format of the rows, block by block, or on processors without instructions
for it in float32 over small copies. Its rounding cannot decide who is among the best: every row within it of
the last place is compared again.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_COPIED_ROWS = 16_384
"""Rows that are converted to float32 at once."""
_GROUP = 64
_ROUNDING = 2.0**-9
"""Of a float16 product, relative to the largest one: twice the error of rounding query and result."""
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
        self._quick = torch.empty(int(self._starts[-1]), dtype=torch.float16)
        product = quickest_product()
        direction = self._query / self._query.norm().clamp(min=1e-12)
        for block, start in zip(blocks, self._starts, strict=False):
            product(block, direction, self._quick[start : start + len(block)])

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
        quick = self._quick
        if kept is not None:
            quick = quick.masked_fill(torch.from_numpy(~kept), -torch.inf)
        rows = _candidates(quick, count, self._margin)
        similarity = self._exact(rows)
        order = np.lexsort((rows, -similarity))[:count]
        return rows[order], similarity[order]

    @cached_property
    def _margin(self) -> float:
        """How far two float16 products may be in the wrong order; rows are about as long as 1 or shorter."""
        least, most = (float(value) for value in torch.aminmax(self._quick))
        return _ROUNDING * max(1.0, -least, most)

    def _exact(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Similarities of ascending rows, in float32."""
        exact = np.empty(len(rows), np.float32)
        cuts = np.searchsorted(rows, self._starts)
        for block, start, first, last in zip(self._blocks, self._starts, cuts[:-1], cuts[1:], strict=False):
            own = block[torch.from_numpy(rows[first:last] - start)]
            exact[first:last] = (own.float() @ self._query).numpy()
        return exact


def _candidates(quick: Tensor, count: int, margin: float) -> NDArray[np.int64]:
    """Ascending rows among which the `count` best are, if no value of `quick` is wrong by half the margin.

    Rows are looked at in groups of 64, spread over all rows. Each of the best groups has a row as good as its
    maximum, so that the maximum of the last of them bounds the last place from below.
    """
    groups = len(quick) // _GROUP
    if count < groups:
        best = quick[: groups * _GROUP].view(_GROUP, groups).amax(0).float()
        bound = float(best.topk(count).values[-1]) - margin
        near = (best >= bound).nonzero()
        rest = torch.arange(groups * _GROUP, len(quick))
        rows = torch.cat([(near + groups * torch.arange(_GROUP)).flatten(), rest])
        rows = rows[quick[rows].float() >= bound]
    else:
        rows = torch.arange(len(quick))
    values = quick[rows].float()
    rows, values = rows[values > -torch.inf], values[values > -torch.inf]
    most = count + _MOST_COMPARED
    if len(rows) > most:
        rows = rows[values.topk(most).indices]
    return rows.sort().values.numpy()


@cache
def quickest_product() -> Product:
    """The quicker product on this machine: that in float16, unless torch would emulate it."""
    if platform.machine() in ("aarch64", "arm64") or torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return half_product
    return copied_product


def half_product(rows: Tensor, query: Tensor, result: Tensor) -> None:
    """The product in float16 as torch has it; quick where the processor multiplies float16."""
    torch.mm(rows, query.half()[:, None], out=result[:, None])


def copied_product(rows: Tensor, query: Tensor, result: Tensor) -> None:
    """The product in float32 over small copies of the rows."""
    copies = torch.empty((min(_COPIED_ROWS, len(rows)), rows.shape[1]))
    for first in range(0, len(rows), _COPIED_ROWS):
        part = rows[first : first + _COPIED_ROWS]
        copied = copies[: len(part)].copy_(part)
        result[first : first + len(part)] = copied @ query
