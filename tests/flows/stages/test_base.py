from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import Interrupted
from flows.stages.base import Inputs, Nothing, StageContext


class Reporter:
    def __init__(self, *, stop: bool) -> None:
        self.stop = stop
        self.seen: list[tuple[int, int]] = []

    def progress(self, done: int, total: int, **metrics: float) -> None:
        self.seen.append((done, total))

    def should_stop(self) -> bool:
        return self.stop


def context(tmp_path: Path, *, stop: bool) -> StageContext[Nothing, Inputs, Nothing]:
    return StageContext(Nothing(), Inputs(), Nothing(), tmp_path, Reporter(stop=stop))


def test_work_that_is_asked_to_stop_stops_where_what_is_done_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="stopped at 2 of 5"):
        context(tmp_path, stop=True).reached(2, 5)


def test_work_goes_on_unless_asked_to_stop_and_ends_when_all_is_done(tmp_path: Path) -> None:
    going, stopping = context(tmp_path, stop=False), context(tmp_path, stop=True)
    going.reached(2, 5)
    stopping.reached(5, 5)
    assert isinstance(going.reporter, Reporter) and going.reporter.seen == [(2, 5)]
