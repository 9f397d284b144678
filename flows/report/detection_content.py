"""How well the detector finds people, from its detections on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flows.report.content import Facts, Figure
from flows.report.plots import group_plot, line_plot
from personsearch_core.evaluation.detection_curves import (
    JudgedDetections,
    at_threshold,
    detection_curve,
    recall_by_size,
)

MOST_FALSE = 10.0
"""False positives per image up to which recall is drawn."""
_POINTS = 300


def describe_detection(
    judged: JudgedDetections, headline: Mapping[str, Any], score_threshold: float
) -> Facts:
    """Facts at the threshold of the evaluation, and curves over all thresholds."""
    found = at_threshold(judged, score_threshold)
    facts = [
        ("AP50", f"{100 * headline['detection_ap50']:.1f}\N{NO-BREAK SPACE}%"),
        ("AP", f"{100 * headline['detection_ap']:.1f}\N{NO-BREAK SPACE}%"),
        ("people found (recall)", f"{100 * found.recall:.1f}\N{NO-BREAK SPACE}%"),
        ("detections that are people (precision)", f"{100 * found.precision:.1f}\N{NO-BREAK SPACE}%"),
        ("false positives per image", f"{found.false_per_image:.2f}"),
    ]
    return Facts(facts, [*_curves(judged), *_sizes(judged, score_threshold)])


def _curves(judged: JudgedDetections) -> list[Figure]:
    curve = detection_curve(judged)
    if not len(curve.threshold):
        return []
    few = np.unique(np.linspace(0, len(curve.threshold) - 1, _POINTS).astype(np.int64))
    recall, precision = curve.recall[few], curve.precision[few]
    precision_recall = line_plot([("", recall * 100, precision)], "recall, %", "precision, %", whole_x=True)
    shown = curve.false_per_image <= MOST_FALSE
    mistakes, found = curve.false_per_image[shown], curve.recall[shown]
    few = np.unique(np.linspace(0, len(found) - 1, _POINTS).astype(np.int64))
    over_mistakes = line_plot([("", mistakes[few], found[few])], "false positives per image", "recall, %")
    return [
        Figure(
            "Precision and recall of the detector",
            precision_recall,
            "Over all score thresholds; the area below the curve is AP50.",
        ),
        Figure(
            "People found, by false positives",
            over_mistakes,
            "A lower threshold finds more people and adds false positives.",
        ),
    ]


def _sizes(judged: JudgedDetections, score_threshold: float) -> list[Figure]:
    groups = recall_by_size(judged, score_threshold)
    if not groups:
        return []
    labels = [f"{group.low:.0f}–{group.high:.0f}" for group in groups]
    plot = group_plot(labels, [group.recall for group in groups], "height of the person, pixels", "recall, %")
    number = sum(group.n_people for group in groups)
    caption = (
        f"The {number:,} people of the test set in {len(groups)} groups of about the same size, by height; "
        f"detections with a score of at least {score_threshold:g}."
    )
    return [Figure("People found, by size", plot, caption)]
