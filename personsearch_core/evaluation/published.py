"""Which readings a published number may be of: those within rounding of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from personsearch_core.errors import PersonSearchError

METRICS = ("mAP", "rank1", "rank5", "rank10", "rank20")

_NUMBER = re.compile(r"\d*\.?\d*")
_SLACK = 1e-9
"""So that a number that lies halfway counts, whatever its last bit is."""


@dataclass(frozen=True)
class PublishedFigure:
    """A number as printed: `value` as a fraction, and half of what its last digit stands for."""

    metric: str
    text: str
    value: float
    half_unit: float

    def fits(self, figures: Mapping[str, float]) -> bool:
        """Whether the metric among `figures`, as fractions, rounds to this."""
        return self.metric in figures and self.distance(figures) <= self.half_unit + _SLACK

    def distance(self, figures: Mapping[str, float]) -> float:
        """How far the metric is from this number; infinite if it is not among the figures."""
        return abs(figures[self.metric] - self.value) if self.metric in figures else math.inf


def parse_published(text: str) -> tuple[PublishedFigure, ...]:
    """Numbers such as `mAP=.252,rank1=47.0`: fractions, or percent if above 1 or followed by %.

    The digits given say how far they were rounded. Raises PersonSearchError for anything else.
    """
    figures: list[PublishedFigure] = []
    for part in text.split(","):
        name, equals, number = part.partition("=")
        metric = _metric(name)
        if not equals or metric is None:
            raise PersonSearchError(
                f"{part.strip()!r} is not a published number: give METRIC=NUMBER such as mAP=.252,rank1=47, "
                f"with a metric of {', '.join(METRICS)}"
            )
        if any(metric == figure.metric for figure in figures):
            raise PersonSearchError(f"{metric} is given twice in {text!r}")
        figures.append(_figure(metric, number.strip()))
    return tuple(figures)


def nearest(published: tuple[PublishedFigure, ...], readings: Mapping[str, Mapping[str, float]]) -> str:
    """The name of the reading whose figures are closest to the published ones.

    Raises PersonSearchError if no reading has all the metrics.
    """
    distances = {
        name: max(figure.distance(figures) for figure in published) for name, figures in readings.items()
    }
    name = min(distances, key=distances.__getitem__)
    if not math.isfinite(distances[name]):
        metrics = ", ".join(figure.metric for figure in published)
        raise PersonSearchError(f"no reading of this dataset has {metrics}")
    return name


def _metric(name: str) -> str | None:
    plain = name.strip().lower().replace("-", "").replace("top", "rank")
    return next((metric for metric in METRICS if metric.lower() == plain), None)


def _figure(metric: str, text: str) -> PublishedFigure:
    digits = text.removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(digits) or not any(letter.isdigit() for letter in digits):
        raise PersonSearchError(f"{metric}={text}: give a fraction or percent such as .252, 25.2 or 25.2%")
    value, decimals = float(digits), len(digits.partition(".")[2])
    if value > 100:
        raise PersonSearchError(f"{metric}={text}: more than 100 %")
    unit = 10.0**-decimals
    if text.endswith("%") or value > 1:
        value, unit = value / 100, unit / 100
    return PublishedFigure(metric, f"{metric}={text}", value, unit / 2)
