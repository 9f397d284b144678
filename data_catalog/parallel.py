"""Reading many files: in this process when they are few, otherwise by several, or on a Dask cluster.

Local processes are a plain pool. Dask's own scheduler of local processes hands over its results only when
all are there, and gives up when one of its processes is killed: here parts go to the disk as they come, with
few of them in memory, and the files of a killed process are read again.

What a task reads comes back as one answer, so a chunk that may be long is read by this process, as a stream,
in its turn.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from data_catalog.errors import CatalogError

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as DaskFuture

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

CHUNKS_IN_PROCESS = 32
"""Starting processes costs as much as reading this many chunks (some 8,000 small files). More must be saved,
which with two cores is half of all chunks, and with many nearly all.
"""
WINDOW = 4
"""Chunks per worker that are under way at once; bounds the memory."""
MOST_DEATHS = 3
"""Of worker processes, in one ingest."""
ANSWER_SECONDS = 5.0
"""How long a Dask scheduler may take to answer."""

log = logging.getLogger(__name__)


def cores() -> int:
    """Processors that this process may run on; a container or a scheduler may grant fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_chunks(
    read: Callable[[Chunk], Iterator[Result]],
    chunks: Sequence[Chunk],
    dask_address: str | None = None,
    *,
    is_long: Callable[[Chunk], bool] = lambda chunk: False,
) -> Iterator[tuple[int, Result]]:
    """(index of its chunk, part) for all parts of all chunks, in order.

    A worker that dies is replaced, and its chunks are read again. A chunk that `is_long` is read by this
    process: its parts are never all in memory.

    Raises:
        CatalogError: when the scheduler cannot be reached, or a chunk kills worker after worker; and what
            `read` raises.
    """
    short = sum(not is_long(chunk) for chunk in chunks)
    if not short or (dask_address is None and short * (1 - 1 / cores()) <= CHUNKS_IN_PROCESS):
        for index, chunk in enumerate(chunks):
            for part in read(chunk):
                yield index, part
        return
    with _client(dask_address) if dask_address is not None else _Processes() as pool:
        waiting = deque(enumerate(chunks))
        pending: deque[tuple[int, Chunk, Any]] = deque()
        while waiting or pending:
            # Asked each time: the workers of a cluster come and go.
            while waiting and len(pending) < WINDOW * max(1, pool.workers()):
                index, chunk = waiting.popleft()
                pending.append((index, chunk, None if is_long(chunk) else pool.submit(read, chunk)))
            index, chunk, task = pending.popleft()
            for part in read(chunk) if task is None else pool.result(task):
                yield index, part


def read_ahead(parts: Iterator[Result]) -> Iterator[Result]:
    """The parts, the next one being made in a thread while the consumer works on the last."""
    end = object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = pool.submit(next, parts, end)
        while (part := pending.result()) is not end:
            pending = pool.submit(next, parts, end)
            yield cast(Result, part)


def _parts(read: Callable[[Chunk], Iterator[Result]], chunk: Chunk) -> list[Result]:
    return list(read(chunk))


class _Processes:
    """Processes of this machine. When one is killed, the pool is replaced and its tasks start over."""

    def __init__(self) -> None:
        self._workers = cores()
        self._deaths = 0
        self._tasks: list[_Task] = []

    def __enter__(self) -> _Processes:
        self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def workers(self) -> int:
        return self._workers

    def submit(self, read: Callable[[Any], Iterator[Any]], chunk: Any) -> _Task:
        task = _Task(read, chunk)
        self._tasks.append(task)
        self._start(task)
        return task

    def result(self, task: _Task) -> list[Any]:
        while True:
            try:
                parts = task.future.result()
            except BrokenProcessPool as error:
                self._replace(error)
            else:
                self._tasks.remove(task)
                return parts

    def _start(self, task: _Task) -> None:
        try:
            task.future = self._pool.submit(_parts, task.read, task.chunk)
        except BrokenProcessPool as error:
            task.future = Future()
            task.future.set_exception(error)

    def _replace(self, error: BrokenProcessPool) -> None:
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise CatalogError(
                f"processes that read files were killed {self._deaths} times, perhaps for lack of memory; "
                "the kernel's log says why"
            ) from error
        log.warning("a process that reads files was killed: a new one reads its files again")
        self._pool.shutdown()
        self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        for task in self._tasks:
            if not task.future.done() or isinstance(task.future.exception(), BrokenProcessPool):
                self._start(task)


@dataclass(eq=False)
class _Task:
    """A chunk that is being read."""

    read: Callable[[Any], Iterator[Any]]
    chunk: Any
    future: Future[list[Any]] = field(init=False)


class _Cluster:
    """The workers of a Dask scheduler, which replaces those that die."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def workers(self) -> int:
        return len(self._client.nthreads())

    def submit(self, read: Callable[[Any], Iterator[Any]], chunk: Any) -> DaskFuture[Any]:
        return self._client.submit(_parts, read, chunk, pure=False)

    def result(self, task: DaskFuture[Any]) -> list[Any]:
        from distributed import KilledWorker

        try:
            return cast("list[Any]", task.result())
        except KilledWorker as error:
            raise CatalogError(f"reading the same files ended several workers: {error}") from error


@contextmanager
def _client(address: str) -> Iterator[_Cluster]:
    from distributed import Client

    try:
        client = Client(address, timeout=f"{ANSWER_SECONDS}s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise CatalogError(
            f"no Dask scheduler answers at {address}: {error}; start one (`dask scheduler`), or "
            "read without Dask"
        ) from error
    with client:
        yield _Cluster(client)
