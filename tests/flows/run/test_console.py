"""What a person sees of a run: lines of our own, and a stage's percent, time left and figures."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from flows import console
from flows.console import ConsoleHandler, busy, told
from flows.run.stage_line import StageLine
from storage.manifest import Identity, Manifest
from storage.store import Artifact


def record(name: str, level: int) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, "hello", None, None)


@pytest.mark.parametrize(
    ("name", "level", "shown"),
    [
        (told.name, logging.INFO, "hello\n"),
        (told.name, logging.WARNING, "warning: hello\n"),
        ("storage.locks", logging.WARNING, "warning: hello\n"),
        ("flows.pipeline", logging.INFO, ""),
        ("prefect.flow_runs", logging.ERROR, ""),  # the failure is told once, by the command
        ("prefect.flow_runs", logging.CRITICAL, "critical: hello\n"),
    ],
)
def test_the_console_shows_what_is_told_and_warnings(
    capsys: pytest.CaptureFixture[str], name: str, level: int, shown: str
) -> None:
    ConsoleHandler(verbose=False).emit(record(name, level))
    assert capsys.readouterr().err == shown
    ConsoleHandler(verbose=True).emit(record(name, level))
    assert "hello" in capsys.readouterr().err


def test_work_that_takes_its_time_says_so_without_a_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "FIRST_SECONDS", 0.01)
    caplog.set_level(logging.INFO, told.name)
    with busy("reading"):
        while not caplog.messages:
            time.sleep(0.01)
    assert caplog.messages[0] == "reading, 0 s"


def test_a_stage_shows_percent_time_left_and_two_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    line = StageLine("detector")
    now += 7
    assert line.text() == "detector       starting, 7 s"
    line.update(40, 100, loss=0.9)  # resumed at 40
    assert line.text() == "detector        40%, loss 0.9"
    now += 30
    noise = {"loss/tracks": float("nan"), "gradient_norm": 3.8, "rate": 1e-3, "active_triplets": float("nan")}
    line.update(60, 100, loss=0.4449, **noise)
    assert line.text() == "detector        60%, about 60 s left, loss 0.445"
    line.update(61, 100, **{"loss": 0.4, "validation/coco_ap50": 0.712, "active_triplets": 0.2})
    assert line.text().endswith("loss 0.4, validation AP50 71.2%")
    assert not line.rates
    rates = {"loader_images_per_second": 210.4, "step_images_per_second": 141.2}
    line.update(62, 100, loss=0.35, **rates)
    assert line.text().endswith("loss 0.35, images/s: loader 210, step 141") and line.rates == rates
    line.update(100, 100, loss=0.3)
    assert line.text() == "detector       finishing, 37 s"


def test_a_stage_without_metrics_shows_counts() -> None:
    followed: list[tuple[int, int]] = []
    line = StageLine("gallery", also=lambda done, total: followed.append((done, total)))
    line.update(1000, 8748)
    assert line.text() == "gallery         11%, 1,000 of 8,748"
    assert followed == [(1000, 8748)]


@pytest.mark.parametrize(
    ("metrics", "told_line"),
    [
        ({"mAP": 0.601, "rank1": 0.85, "images": 60}, "evaluation     2 min 05 s, mAP 60.1%, rank-1 85.0%"),
        ({"counts": {"images": 1200, "boxes": 9}}, "evaluation     2 min 05 s, 1,200 images, 9 boxes"),
        ({}, "evaluation     2 min 05 s"),
    ],
)
def test_one_line_says_how_a_stage_ended(
    caplog: pytest.LogCaptureFixture, metrics: dict[str, object], told_line: str
) -> None:
    identity = Identity(kind="evaluation", version=1, recipe={}, inputs={})
    manifest = Manifest(
        identity=identity,
        key=identity.key,
        content_digest="",
        files={},
        created="2026-01-01",
        seconds=125.0,
        metrics=metrics,
    )
    caplog.set_level(logging.INFO, told.name)
    StageLine("evaluation").built(Artifact(Path("x"), manifest))
    assert caplog.messages == [told_line]
