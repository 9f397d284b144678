"""The transcripts of the demo in the docs, and how they are made."""

from __future__ import annotations

import re
import sys

import pytest

from tests.campaigns.first_minutes import COLUMNS, MOST_LINES, PAGE, record

WORK = """
import sys
from flows.run.console import live, told, ConsoleHandler
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


def test_the_transcripts_fit_a_screen() -> None:
    terminal, live, plain = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert "detector" in terminal and "detector" in plain
    assert all(len(text.splitlines()) <= MOST_LINES for text in (terminal, plain))
    assert re.fullmatch(r"detector +\d+%, about .* left, .*\n", live) and len(live) <= COLUMNS + 1
