"""Blocks of queries, ranked here, in threads or on Dask workers, with the same blocks and numbers everywhere.

Rankings with the same queries and pool of detections share their similarities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.records import FloatArray, IntArray

_BLOCK_BYTES = 64 << 20


Products = Iterator[FloatArray]
"""The similarities of each query of a block, (n,), in order."""
BlockProducts = FloatArray
"""The similarities of a block of b queries with a whole pool, (b, m)."""


@dataclass(frozen=True, eq=False)
class Job:
    """One ranking of all queries; can be pickled if `rank` can.

    `embeddings` (q, d) of the queries; `pool` (m, d) of detections, of which the ranking takes the n at
    `column`, None = all. `rank(block, products)` returns the outcome of one block; `products` are the
    similarities with these, (n,) per query, and may be overwritten. A job that compares few of all pairs
    computes them itself: it gets None and states its memory per query, `own_bytes`. A job with `whole_block`
    gets all similarities of the block with the pool at once, (b, m), and must not change them.
    """

    embeddings: FloatArray
    pool: FloatArray
    column: IntArray | None
    rank: Callable[[range, Any], Any]
    own_bytes: float | None = None
    whole_block: bool = False


Jobs = tuple[Job, ...]
MapBlocks = Callable[[Callable[[Jobs, range], list[Any]], Jobs, Sequence[range]], Iterable[list[Any]]]
"""Applies a function to (jobs, block) for every block, in order: `serially`, `in_threads`, `on_dask`."""


def run_jobs(
    jobs: Sequence[Job], map_blocks: MapBlocks, progress: Callable[[int, int], None] | None = None
) -> list[list[Any]]:
    """Outcomes of each job's blocks, job by job; shared similarities are computed once.

    `progress(done, total)` is called after every block. Raises PersonSearchError if dimensions differ.
    """
    bundles: dict[object, list[int]] = {}
    for number, job in enumerate(jobs):
        _check_dimensions(job)
        key = (id(job.embeddings), id(job.pool)) if job.own_bytes is None else number
        bundles.setdefault(key, []).append(number)
    shares = [(members, query_blocks(jobs[members[0]])) for members in bundles.values()]
    total, done = sum(len(blocks) for _, blocks in shares), 0
    outcomes: list[list[Any]] = [[] for _ in jobs]
    for members, blocks in shares:
        for of_block in map_blocks(_rank_together, tuple(jobs[number] for number in members), blocks):
            for number, outcome in zip(members, of_block, strict=True):
                outcomes[number].append(outcome)
            done += 1
            if progress is not None:
                progress(done, total)
    return outcomes


def query_blocks(job: Job) -> list[range]:
    """Consecutive queries whose similarities fit in a fixed number of bytes."""
    bytes_of_a_query = 4.0 * len(job.pool) if job.own_bytes is None else job.own_bytes
    size = max(1, int(_BLOCK_BYTES / max(bytes_of_a_query, 1)))
    n_queries = len(job.embeddings)
    return [range(start, min(start + size, n_queries)) for start in range(0, n_queries, size)]


def _check_dimensions(job: Job) -> None:
    dimensions = job.embeddings.shape[1], job.pool.shape[1]
    if dimensions[0] != dimensions[1] or not dimensions[0]:
        raise PersonSearchError(
            f"queries have embeddings of {dimensions[0]} numbers, detections of {dimensions[1]}: "
            "both must come from the same model"
        )


def _rank_together(jobs: Jobs, block: range) -> list[Any]:
    """A block's outcome per job; all jobs have the same queries and pool."""
    if jobs[0].own_bytes is not None:
        return [job.rank(block, None) for job in jobs]
    products = jobs[0].embeddings[block.start : block.stop] @ jobs[0].pool.T
    return [
        job.rank(block, products if job.whole_block else _rows(products, job, last=job is jobs[-1]))
        for job in jobs
    ]


def _rows(products: FloatArray, job: Job, *, last: bool) -> Products:
    for row in products:
        if job.column is not None:
            yield row.take(job.column)
        else:
            yield row if last else row.copy()


def serially(rank: Callable[[Jobs, range], list[Any]], jobs: Jobs, blocks: Sequence[range]) -> Iterator[Any]:
    """One block after another, in this thread."""
    return (rank(jobs, block) for block in blocks)


def in_threads(workers: int) -> MapBlocks:
    """Blocks on `workers` threads, which share the gallery; BLAS releases the GIL."""
    if workers == 1:
        return serially

    def map_blocks(
        rank: Callable[[Jobs, range], list[Any]], jobs: Jobs, blocks: Sequence[range]
    ) -> list[list[Any]]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(partial(rank, jobs), blocks))

    return map_blocks


def on_dask(client: Any) -> MapBlocks:
    """Blocks on the workers of a `distributed.Client`; jobs are sent to each worker once."""

    def map_blocks(
        rank: Callable[[Jobs, range], list[Any]], jobs: Jobs, blocks: Sequence[range]
    ) -> list[list[Any]]:
        (sent,) = client.scatter([jobs], broadcast=True)  # A bare tuple would be sent job by job.
        futures = [client.submit(rank, sent, block, pure=False) for block in blocks]
        return list(client.gather(futures))

    return map_blocks
