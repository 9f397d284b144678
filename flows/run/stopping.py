"""How work is stopped by hand or by a scheduler: it ends at a checkpoint, with one line on how to go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flows.errors import Interrupted


@contextmanager
def stoppable(saved: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the block as `stopped(saved())` says.

    Raises Interrupted.
    """
    try:
        with sigterm_as_interrupt():
            yield
    except KeyboardInterrupt:
        raise stopped(saved()) from None


def stopped(saved: str = "") -> Interrupted:
    """Work was stopped; `saved` is what is kept of it, after a semicolon."""
    return Interrupted(f"stopped{saved}; run the same command to go on")


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which a scheduler sends, and SIGHUP, which a closed terminal sends, like Ctrl-C.

    If hang-ups are ignored, as under `nohup`, they stay ignored. Outside the main thread, which alone gets
    signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {signal.SIGTERM: signal.default_int_handler}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Passed on, since Prefect has a handler of its own for SIGTERM while a flow runs.
        handlers[signal.SIGHUP] = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
