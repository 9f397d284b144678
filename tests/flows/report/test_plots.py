"""Plots as inline SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from flows.report.plots import histogram, history_plot, line_plot

HOSTILE = "</text><script>alert(1)</script>$x^$ & \"'"


def _texts(svg: str) -> list[str]:
    return [
        "".join(element.itertext())
        for element in ElementTree.fromstring(svg).iter()
        if element.tag.endswith("text")
    ]


def test_takes_its_colours_and_its_size_from_the_page() -> None:
    root = ElementTree.fromstring(line_plot([("a", np.arange(3), np.arange(3) / 2)], "x", "y"))
    assert "width" not in root.attrib and "viewBox" in root.attrib
    svg = line_plot([("a", np.arange(3), np.arange(3) / 2)], "x", "y")
    assert "var(--series-1)" in svg and "var(--line)" in svg
    assert "#01" not in svg and "#0a0a" not in svg


def test_labels_are_text_and_escaped() -> None:
    svg = line_plot([(HOSTILE, np.arange(3), np.arange(3)), ("b", np.arange(3), np.arange(3))], "x", "y")
    assert HOSTILE in _texts(svg)
    assert "<script" not in svg


def test_equal_plots_are_equal_text() -> None:
    values = np.random.default_rng(0).random(50)
    assert histogram(values, "x", "y") == histogram(values, "x", "y")


def test_long_noisy_histories_stay_small_and_log_axes_show_plain_numbers() -> None:
    steps = np.arange(500_000)
    noise = np.random.default_rng(0).random(len(steps)) + 0.01
    svg = history_plot([("loss", steps, noise)], [1000.5], log_y=True)
    assert len(svg) < 60_000
    assert not [text for text in _texts(svg) if "math" in text or "$" in text]


def test_a_single_point_and_constant_values_can_be_drawn() -> None:
    one = np.array([1.0])
    for log_y in (False, True):
        assert "<svg" in history_plot([("validation", one, one)], [], log_y=log_y)
    assert "<svg" in line_plot([("a", one, one)], "x", "y", log_x=True, level=("all", 0.5))
