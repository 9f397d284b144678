"""The line of a stage: percent, time left and two figures while it is built, then how long that took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flows.console import live, told
from flows.wording import about, duration
from storage.store import Artifact

WIDTH = 14
"""Of the column of names; a longer name takes what it needs."""

_AT_WORK = {
    "loss": "loss {:.3g}",
    "validation/mAP": "validation mAP {:.1%}",
    "validation/coco_ap50": "validation AP50 {:.1%}",
    "active_triplets": "active triplets {:.0%}",
    "images_per_second": "{:.3g} images per second",
}
"""What is shown of the metrics of work that goes on: the first two that it has."""
_WHEN_BUILT = {
    "mAP": "mAP {:.1%}",
    "rank1": "rank-1 {:.1%}",
    **_AT_WORK,
    "images": "{:,} images",
    "rows": "{:,} rows",
    "boxes": "{:,} boxes",
}
_SHOWN = 2
_LOADER, _STEP = "loader_images_per_second", "step_images_per_second"
"""Of a training that reads images; the lower one limits it."""


@contextmanager
def stage_line(name: str, also: Callable[[int, int], None] | None = None) -> Iterator[StageLine]:
    """Keep the line of a stage in sight while the block lasts; see `StageLine`."""
    line = StageLine(name, also)
    with live(line.text):
        yield line


@dataclass
class StageLine:
    """Follows `update`, as does `also`, which is called with (done, total); `built` tells the outcome."""

    name: str
    also: Callable[[int, int], None] | None = None
    rates: dict[str, float] = field(default_factory=dict)
    """Images per second of a training, by the names that it gives them."""
    _started: float = field(default_factory=lambda: time.monotonic())
    _begun: tuple[float, int] | None = None
    _done: int = 0
    _total: int = 0
    _figures: list[str] = field(default_factory=list)

    def update(self, done: int, total: int, **metrics: float) -> None:
        """Note how far the stage is; a resumed one begins above 0."""
        if self.also is not None:
            self.also(done, total)
        if self._begun is None:
            self._begun = (time.monotonic(), done)
        self._done, self._total = done, total
        self._figures = _figures(_AT_WORK, metrics) or self._figures
        rates = {name: metrics.get(name, math.nan) for name in (_LOADER, _STEP)}
        if all(math.isfinite(rate) for rate in rates.values()):
            self.rates = rates

    def text(self) -> str:
        """The line as it stands now."""
        if self._begun is None or self._total < 1:
            return f"{self.name:{WIDTH}} starting, {time.monotonic() - self._started:.0f} s"
        if self._done >= self._total:
            return f"{self.name:{WIDTH}} finishing, {time.monotonic() - self._started:.0f} s"
        counts = f"{self._done:,} of {self._total:,}"
        parts = [f"{self._done / self._total:4.0%}", *self._time_left(), *(self._figures or [counts])]
        if self.rates:
            parts.append("images/s: loader {:.3g}, step {:.3g}".format(*self.rates.values()))
        return f"{self.name:{WIDTH}} {', '.join(parts)}"

    def built(self, artifact: Artifact) -> None:
        """Tell that the stage is built, how long that took, and its figures."""
        figures = _figures(_WHEN_BUILT, _flat(artifact.manifest.metrics)) or self._figures
        told.info("%s", f"{self.name:{WIDTH}} {', '.join([duration(artifact.manifest.seconds), *figures])}")

    def _time_left(self) -> list[str]:
        assert self._begun is not None
        since, done_then = self._begun
        seconds, done = time.monotonic() - since, self._done - done_then
        if done < 1 or seconds < 1:
            return []
        return [f"about {about(seconds / done * (self._total - self._done))} left"]


def _figures(shown: Mapping[str, str], metrics: Mapping[str, Any]) -> list[str]:
    values = ((form, metrics.get(name)) for name, form in shown.items())
    found = [
        form.format(value)
        for form, value in values
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    return found[:_SHOWN]


def _flat(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """An ingest nests its counts."""
    counts = metrics.get("counts")
    return counts if isinstance(counts, dict) else metrics
