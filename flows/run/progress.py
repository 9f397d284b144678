"""One line of progress for long work; unlike what the UI shows, it needs no Prefect."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

_LOG_SECONDS = 30.0


class ProgressLine:
    """A bar on a terminal, elsewhere a log record now and then. Use it as a context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._bar: Any = None
        self._logged_at = time.monotonic()
        self.also: Callable[[int, int], None] | None = None
        """Who else follows, with (done, total)."""

    def update(self, done: int, total: int, **metrics: float) -> None:
        if self.also is not None:
            self.also(done, total)
        shown = {name: f"{value:.4g}" for name, value in metrics.items()}
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(total=total, desc=self.name, dynamic_ncols=True, leave=False)
            self._bar.total = total
            self._bar.n = done
            self._bar.set_postfix(shown)
        elif time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = time.monotonic()
            log.info(
                "%s: %d of %d %s", self.name, done, total, " ".join(f"{k}={v}" for k, v in shown.items())
            )

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
