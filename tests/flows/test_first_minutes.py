"""How the transcripts of the demo are made."""

from __future__ import annotations

import sys

import pytest

from tests.campaigns.first_minutes import record

WORK = """
import sys
from flows.console import live, told, ConsoleHandler
import logging, time
logging.basicConfig(level=logging.INFO, handlers=[ConsoleHandler(verbose=False)])
told.info("one line")
with live(lambda: "stage  40%, about 2 s left"):
    time.sleep(0.6)
told.info("stage  2 s")
print("the end")
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_that_stay_are_kept_and_the_live_line_is_not(terminal: bool) -> None:
    found = record([sys.executable, "-c", WORK], terminal=terminal)
    assert found.lines() == ["one line", "stage  2 s", "the end"]
    assert found.live("stage  40") == (["stage  40%, about 2 s left"] if terminal else [])
    assert 0 < found.longest_silence <= found.seconds
