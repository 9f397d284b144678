"""Reading many files: in this process when they are few, otherwise on Dask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar, cast

from data_catalog.errors import CatalogError

Chunk = TypeVar("Chunk")
Part = TypeVar("Part")

CHUNKS_IN_PROCESS = 64
"""Up to here (some 16,000 small files) starting processes costs more than it saves."""
WAVE = 4
"""Chunks a worker whose results may wait at once; bounds the memory."""


def map_chunks(
    read: Callable[[Chunk], Iterator[Part]], chunks: Sequence[Chunk], dask_address: str | None = None
) -> Iterator[tuple[int, Part]]:
    """(index of its chunk, part) for all parts of all chunks, in order.

    Raises:
        CatalogError: when the scheduler cannot be reached; and what `read` raises.
    """
    if dask_address is None and (len(chunks) <= CHUNKS_IN_PROCESS or (os.cpu_count() or 1) < 2):
        for index, chunk in enumerate(chunks):
            for part in read(chunk):
                yield index, part
        return
    import dask

    with _scheduler(dask_address) as (options, workers):
        step = WAVE * workers
        for start in range(0, len(chunks), step):
            tasks = [dask.delayed(_parts)(read, chunk) for chunk in chunks[start : start + step]]
            for offset, parts in enumerate(dask.compute(*tasks, **options)):
                for part in parts:
                    yield start + offset, part


def read_ahead(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts, the next one being made in a thread while the consumer works on the last."""
    end = object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = pool.submit(next, parts, end)
        while (part := pending.result()) is not end:
            pending = pool.submit(next, parts, end)
            yield cast(Part, part)


def _parts(read: Callable[[Chunk], Iterator[Part]], chunk: Chunk) -> list[Part]:
    return list(read(chunk))


@contextmanager
def _scheduler(address: str | None) -> Iterator[tuple[dict[str, Any], int]]:
    """How `dask.compute` is to run, and on how many workers."""
    if address is None:
        workers = os.cpu_count() or 1
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield {"scheduler": "processes", "pool": pool, "num_workers": workers}, workers
        return
    from distributed import Client

    try:
        client = Client(address, timeout="5s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise CatalogError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        yield {"scheduler": client}, max(1, len(client.scheduler_info()["workers"]))
