"""Work ahead in threads of this process.

Decoding and resizing release the GIL, so threads keep a device busy; worker processes would pay for new
shared memory with every batch.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from typing import Generic, Protocol, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class OnDevice(Protocol):
    """A tensor, or something that has tensors of a device."""

    def record_stream(self, stream: torch.cuda.Stream, /) -> object:
        """Keep their memory until what the stream has been given is done."""


Brought = TypeVar("Brought", bound=OnDevice)


@dataclass(frozen=True, eq=False)
class NetworkInputs(Generic[Item]):
    """A batch on the device, and what it was made of."""

    images: torch.Tensor
    batch: Item

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """See `OnDevice`."""
        self.images.record_stream(stream)


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


def in_batches(items: Iterable[Item], size: int) -> Generator[list[Item], None, None]:
    """The items in lists of `size`; the last one may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def brought(
    items: Generator[Item, None, None],
    bring: Callable[[Item], Brought],
    device: torch.device,
    took: Callable[[Brought, float], None] = lambda *_: None,
) -> Generator[Brought, None, None]:
    """`map(bring, items)`; on a GPU, a thread brings one item there while the one before is in use.

    It does so on a stream of its own, where it waits until each item has arrived, so that copies go on beside
    kernels and whatever `bring` calls may wait, too. `took` is told in how many seconds each item arrived.
    Closing closes the items.
    """
    with closing(items):
        if device.type != "cuda":
            yield from _timed(items, bring, took)
            return
        # Made here: in another thread, a device without a number may be another GPU.
        stream = torch.cuda.Stream(device)
        with closing(in_thread(_timed(items, _arriving(bring, stream), took), ahead=1)) as results:
            for result in results:
                result.record_stream(torch.cuda.current_stream(device))
                yield result


def _timed(
    items: Iterable[Item], bring: Callable[[Item], Result], took: Callable[[Result, float], None]
) -> Generator[Result, None, None]:
    for item in items:
        started = time.perf_counter()
        result = bring(item)
        took(result, time.perf_counter() - started)
        del item  # no batch is held here while the next is loaded
        yield result
        del result


def _arriving(bring: Callable[[Item], Result], stream: torch.cuda.Stream) -> Callable[[Item], Result]:
    """`bring` on a stream, until what it brings has arrived."""
    arrival = torch.cuda.Event(blocking=True)

    def bring_whole(item: Item) -> Result:
        with torch.cuda.stream(stream):
            result = bring(item)
            arrival.record(stream)
        arrival.synchronize()
        return result

    return bring_whole
