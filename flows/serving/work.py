"""Where work is done: the model in one thread with a bounded queue, everything else in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flows.serving.limits import Limits
from flows.serving.refusals import Refused

Result = TypeVar("Result")


class Work:
    """The threads of one server."""

    def __init__(self, limits: Limits) -> None:
        self._model = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._searches = ThreadPoolExecutor(limits.threads, thread_name_prefix="search")
        self._drawings = ThreadPoolExecutor(limits.threads, thread_name_prefix="draw")
        self._most_waiting = limits.model_queue
        self._waiting = 0

    async def with_model(self, function: Callable[[], Result]) -> Result:
        """Call it in the model's thread, one after another. Raises Refused (503) if too many wait."""
        if self._waiting >= self._most_waiting:
            raise Refused(503, "too many pictures are waiting: try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._model, function)
        finally:
            self._waiting -= 1

    async def searching(self, function: Callable[[], Result]) -> Result:
        """Call it in one of the threads for searches."""
        return await asyncio.get_running_loop().run_in_executor(self._searches, function)

    async def drawing(self, function: Callable[[], Result]) -> Result:
        """Call it in one of the threads that read scenes."""
        return await asyncio.get_running_loop().run_in_executor(self._drawings, function)

    def close(self) -> None:
        for pool in (self._model, self._searches, self._drawings):
            pool.shutdown(wait=False, cancel_futures=True)
