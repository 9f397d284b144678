"""Work ahead in threads of this process.

Decoding and resizing release the GIL, so threads keep a device busy; worker processes would pay for new
shared memory with every batch.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def decode_threads() -> int:
    """Number of decoding threads: all usable cores, at most 16."""
    return min(16, len(os.sched_getaffinity(0)))


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """`map(function, items)`, in order, with up to `ahead` results computed in advance.

    An exception in `function` is raised in place of its result. Closing the iterator drops pending items.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
