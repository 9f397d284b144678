"""What a person sees of work as it goes: lines on standard error and, on a terminal, a live line below.

What is told here goes through logging as well, so that a run under Prefect has it in its log.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

told = logging.getLogger("flows.console")
"""Lines for whoever runs a command; everything else that is logged below a warning is for --verbose."""

FIRST_SECONDS, NEXT_SECONDS = 5.0, 30.0
"""Without a terminal: when work that goes on says so first, and how often from then on."""

_ORCHESTRATION = ("prefect", "httpx", "distributed")
"""Libraries that tell of states and connections, which the flows tell in their own words."""


class ConsoleHandler(logging.Handler):
    """Prints what is told as it is, and warnings with their level; with `verbose`, every record."""

    def __init__(self, *, verbose: bool) -> None:
        super().__init__(logging.DEBUG)
        self._verbose = verbose

    def emit(self, record: logging.LogRecord) -> None:
        is_told = record.name == told.name
        if not (is_told or self._verbose):
            is_library = record.name.partition(".")[0] in _ORCHESTRATION
            if record.levelno < (logging.CRITICAL if is_library else logging.WARNING):
                return
        prefix = "" if is_told and record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        try:
            text = f"{prefix}{record.getMessage()}"
            if is_terminal():
                terminal().print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def is_terminal() -> bool:
    """Whether a person may be looking at standard error."""
    return sys.stderr.isatty()


@cache
def terminal() -> Console:
    """Standard error as a terminal; lines and the live line share it."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def live(line: Callable[[], str]) -> Iterator[None]:
    """Keep `line()` in sight while the block lasts: at the bottom of a terminal, else told now and then.

    Blocks are not nested.
    """
    if is_terminal():
        from rich.live import Live
        from rich.text import Text

        def cut() -> Text:
            return Text(line(), no_wrap=True, overflow="ellipsis")

        with Live(get_renderable=cut, console=terminal(), refresh_per_second=4, transient=True):
            yield
        return
    ended = threading.Event()

    def tell() -> None:
        seconds = FIRST_SECONDS
        while not ended.wait(seconds):
            told.info("%s", line())
            seconds = NEXT_SECONDS

    thread = threading.Thread(target=tell, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say what the block does, and for how long it has been at it."""
    started = time.monotonic()
    with live(lambda: f"{what}, {time.monotonic() - started:.0f} s"):
        yield
