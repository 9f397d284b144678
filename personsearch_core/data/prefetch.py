"""Work ahead in threads of this process.

Decoding and resizing release the GIL, so threads keep a device busy; worker processes would pay for new
shared memory with every batch.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import count, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def decode_threads() -> int:
    """Number of decoding threads: all usable cores, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, usable)


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


def in_thread(items: Iterable[Item], *, ahead: int) -> Generator[Item, None, None]:
    """The items of an iterable that works for each of them: a thread takes up to `ahead` in advance.

    An exception of the iterable is raised after the items before it. Closing waits for the item under way.
    """
    source = iter(items)
    with closing(prefetch(lambda _: list(islice(source, 1)), count(), threads=1, ahead=ahead)) as taken:
        for item in taken:
            if not item:
                return
            yield item[0]


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last one may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
