"""The metrics of an evaluation, warnings about them, and their plots."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.rules import DRAWN
from flows.report.content import Figure
from flows.report.plots import Series, histogram, line_plot
from flows.stages.evaluation import CURVES, MATCHES, METRICS, PER_QUERY
from flows.wording import counted
from personsearch_core.evaluation.comparison import query_interval
from storage.store import Artifact

FEW = 100
"""With fewer queries or images than this, a single one shifts a metric by a point or more."""
_GALLERY_SETTING = re.compile(r"gallery (\d+|full)(?P<truth>, ground-truth boxes)?")


@dataclass(frozen=True)
class EvaluationFiles:
    """The files of one evaluation artifact."""

    path: Path
    score_threshold: float
    draws: int = 0
    """Bootstrap samples behind intervals; 0 for no intervals."""
    seed: int = 0

    @classmethod
    def of(cls, evaluation: Artifact) -> EvaluationFiles:
        recipe = evaluation.manifest.identity.recipe
        return cls(evaluation.path, recipe["score_threshold"], recipe["bootstrap_samples"], recipe["seed"])

    @cached_property
    def headline(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._metrics["headline"]
        return found

    @cached_property
    def settings(self) -> Sequence[Mapping[str, Any]]:
        """Records of all settings, the headline first."""
        found: Sequence[Mapping[str, Any]] = self._metrics["settings"]
        return found

    @property
    def readings(self) -> Sequence[Mapping[str, Any]]:
        """Records of all published codes' readings, empty if the evaluation did not ask for them."""
        found: Sequence[Mapping[str, Any]] = self._metrics.get("readings", ())
        return found

    @property
    def readings_skipped(self) -> Sequence[Mapping[str, str]]:
        """The readings that the test set does not allow: `name` and `reason`."""
        found: Sequence[Mapping[str, str]] = self._metrics.get("readings_skipped", ())
        return found

    @cached_property
    def per_query(self) -> pa.Table:
        """The queries of the headline setting."""
        table = pq.read_table(self.path / PER_QUERY)
        return table.filter(pc.equal(table["setting"], self.settings[0]["name"]))

    @cached_property
    def rank1_intervals(self) -> Mapping[str, tuple[float, float]]:
        """95 % intervals of rank-1 by setting, over the resampled queries of mAP; empty without."""
        if not self.draws:
            return {}
        found = {}
        table = pq.read_table(self.path / PER_QUERY, columns=["setting", "hit1"])
        for setting in self.settings:
            hits = table.filter(pc.equal(table["setting"], setting["name"]))["hit1"].to_numpy()
            interval = query_interval(hits, self.draws, self.seed)
            found[setting["name"]] = (interval.low, interval.high)
        return found

    @cached_property
    def matches(self) -> pa.Table:
        """The best matches of the headline setting, by query and rank."""
        return pq.read_table(self.path / MATCHES)

    @cached_property
    def curves(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = json.loads((self.path / CURVES).read_bytes())
        return found

    @cached_property
    def _metrics(self) -> Any:
        return json.loads((self.path / METRICS).read_bytes())


def warnings(results: EvaluationFiles) -> list[str]:
    """Sentences on the limits of the numbers."""
    headline = results.headline
    queries, images = headline["queries"], headline["images"]
    found = []
    if queries < FEW or images < FEW:
        found.append(
            f"These figures mean little: the test has {counted(queries, 'query', 'queries')} and "
            f"{counted(images, 'image')}. With fewer than {FEW} of either, single people and scenes "
            "decide the result."
        )
    if results.settings[0]["protocol"] == DRAWN:
        found.append(
            "The queries were drawn by a rule in the config, not published with the dataset: compare these "
            "figures only with results on the same queries."
        )
    without = pc.sum(pc.equal(results.per_query["n_truths"], 0)).as_py() or 0
    if without:
        found.append(
            f"{counted(without, 'query has', 'queries have')} no match in the gallery; each counts as AP 0."
        )
    if not len(results.matches):
        found.append(
            f"No detection has a score of at least {results.score_threshold:g}, so there is nothing to rank. "
            "Train the detector longer, or lower evaluation.score_threshold and detections.score_threshold."
        )
    untrained = headline.get("mAP_untrained")
    if untrained is not None and 0 < headline["mAP"] <= untrained:
        found.append("The trained branch ranks no better than the same branch before training.")
    return found


def varied_boxes(results: EvaluationFiles) -> str:
    """What the settings of a number of boxes per image say beside the headline; empty without them."""
    headline = results.headline
    if "best_boxes_per_image" not in headline:
        return ""
    best, own = headline["best_boxes_mAP"], headline["mAP"]
    beside = "equal to" if best == own else "above" if best > own else "below"
    return (
        "Papers on PRW quote the number of boxes per image that ranks best. Here that is "
        f"{headline['best_boxes_per_image']:g}, with an mAP of {100 * best:.1f} %, {beside} the headline's "
        f"{100 * own:.1f} %. It is chosen on the test set itself, so it flatters; the headline does not: its "
        f"minimum score of {results.score_threshold:g} is set in the config."
    )


def shown_setting(name: str) -> str:
    """A setting's name as people read it; artifacts keep the one that they were made with."""
    return name.replace(" boxes an image", " boxes per image")


def result_figures(results: EvaluationFiles) -> list[Figure]:
    """CMC, precision-recall, the distribution of AP, and mAP over the varied settings."""
    figures = [
        Figure(
            "Cumulative matching characteristic (CMC)",
            line_plot(
                [
                    (shown_setting(c["name"]), np.arange(1, len(c["cmc"]) + 1), np.array(c["cmc"]))
                    for c in results.curves
                ],
                "rank",
                "queries found, %",
            ),
            "Share of queries with a correct match among the top ranks.",
        )
    ]
    with_recall = [curve for curve in results.curves if "recall" in curve]
    if with_recall:
        lines = [
            (shown_setting(c["name"]), np.array(c["recall"]) * 100, np.array(c["precision"]))
            for c in with_recall
        ]
        figures.append(
            Figure(
                "Precision and recall of the search",
                line_plot(lines, "recall, %", "precision, %"),
                "Interpolated precision of each ranking, averaged over queries.",
            )
        )
    figures.append(
        Figure(
            "Average precision by query",
            histogram(results.per_query["ap"].to_numpy(), "average precision, %", "queries"),
            f"Distribution over the {counted(len(results.per_query), 'query', 'queries')} of the headline.",
        )
    )
    return [*figures, *_gallery_size_figure(results), *_boxes_figure(results)]


def _gallery_size_figure(results: EvaluationFiles) -> list[Figure]:
    points: dict[str, list[tuple[float, float]]] = {}
    for setting in results.settings:
        match = _GALLERY_SETTING.fullmatch(setting["name"])
        if match is not None:
            size = results.headline["images"] if match[1] == "full" else int(match[1])
            points.setdefault("ground-truth boxes" if match["truth"] else "detections", []).append(
                (size, setting["mAP"])
            )
    lines = _lines(points)
    if not lines:
        return []
    plot = line_plot(lines, "images in the gallery", "mAP, %", markers=True, log_x=True)
    return [Figure("mAP by gallery size", plot, "A larger gallery makes the search harder.")]


def _boxes_figure(results: EvaluationFiles) -> list[Figure]:
    points: dict[str, list[tuple[float, float]]] = {}
    for setting in results.settings:
        for name, label in (
            ("boxes_per_image", "on average, by score"),
            ("per_image_top_k", "best boxes of each image"),
        ):
            if setting.get(name) is not None:
                points.setdefault(label, []).append((setting[name], setting["mAP"]))
    lines = _lines(points)
    if not lines:
        return []
    level = (f"score of at least {results.score_threshold:g}", results.headline["mAP"])
    plot = line_plot(lines, "boxes per image", "mAP, %", markers=True, level=level)
    return [Figure("mAP by boxes per image", plot, "Too few boxes miss people; too many add distractors.")]


def _lines(points: Mapping[str, Sequence[tuple[float, float]]]) -> list[Series]:
    """Series sorted by x, without those that have a single point."""
    lines = []
    for label, pairs in points.items():
        if len(pairs) > 1:
            x, y = np.array(sorted(pairs)).T
            lines.append((label, x, y))
    return lines
