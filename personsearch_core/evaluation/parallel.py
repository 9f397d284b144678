"""Blocks of queries on threads or Dask workers. Neither blocks nor numbers depend on who ranks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from personsearch_core.evaluation.search import BlockCounts, MapBlocks
from personsearch_core.evaluation.task import SearchTask


def in_threads(workers: int) -> MapBlocks:
    """Blocks on `workers` threads of this process, which share the gallery; BLAS releases the interpreter."""

    def map_blocks(
        rank: Callable[[SearchTask, range], BlockCounts], task: SearchTask, blocks: Sequence[range]
    ) -> list[BlockCounts]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(partial(rank, task), blocks))

    return map_blocks


def on_dask(client: Any) -> MapBlocks:
    """Blocks on the workers of a `distributed.Client`; the task is sent to each of them once."""

    def map_blocks(
        rank: Callable[[SearchTask, range], BlockCounts], task: SearchTask, blocks: Sequence[range]
    ) -> list[BlockCounts]:
        sent = client.scatter(task, broadcast=True)
        futures = [client.submit(rank, sent, block, pure=False) for block in blocks]
        return list(client.gather(futures))

    return map_blocks
