"""The plots of an evaluation's files, and the warnings about their limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.report.results import FEW, EvaluationFiles, result_figures, warnings

NAMES = ("gallery 50", "gallery 1000", "gallery full", "gallery 50, best 3 boxes of each image")


def _results(
    folder: Path, names: Sequence[str], queries: int = FEW, protocol: str = "TestG50", **headline: Any
) -> EvaluationFiles:
    """Evaluation files with this many queries; each setting is a little worse than the one before."""
    settings = [
        {
            "name": name,
            "protocol": protocol,
            "mAP": 0.9 - 0.1 * number,
            "per_image_top_k": 3 + number if "best" in name else None,
        }
        for number, name in enumerate(names)
    ]
    whole = {"mAP": 0.9, "mAP_untrained": 0.2, "queries": queries, "images": 6978} | headline
    curves = [{"name": name, "cmc": [0.5, 0.75, 1.0]} for name in names]
    per_query = {
        "setting": [name for name in names for _ in range(queries)],
        "query_id": [str(query) for query in range(queries)] * len(names),
        "ap": [0.5] * (queries * len(names)),
        "n_truths": [0, *[4] * (queries - 1)] * len(names),
    }
    (folder / "metrics.json").write_text(json.dumps({"headline": whole, "settings": settings}))
    (folder / "curves.json").write_text(json.dumps(curves))
    pq.write_table(pa.table(per_query), folder / "per_query.parquet")
    pq.write_table(pa.table({"query_id": ["0"]}), folder / "matches.parquet")
    return EvaluationFiles(folder, 0.5)


def test_map_by_gallery_size_is_drawn_where_there_are_several(tmp_path: Path) -> None:
    figures = {figure.title: figure.svg for figure in result_figures(_results(tmp_path, NAMES))}
    assert ">6978<" in figures["mAP by gallery size"]  # the full gallery at its size
    assert "mAP by boxes per image" not in figures  # one point is no curve


def test_one_setting_has_no_curve_over_settings(tmp_path: Path) -> None:
    titles = [figure.title for figure in result_figures(_results(tmp_path, NAMES[:1]))]
    assert titles == ["Cumulative matching characteristic (CMC)", "Average precision by query"]


def test_only_the_headline_setting_is_looked_at_query_by_query(tmp_path: Path) -> None:
    assert set(_results(tmp_path, NAMES).per_query["setting"].to_pylist()) == {"gallery 50"}


def test_enough_queries_and_images_need_no_warning_but_for_empty_galleries(tmp_path: Path) -> None:
    found = warnings(_results(tmp_path, NAMES))
    assert found == ["1 query has no match in the gallery; each counts as AP 0."]


def test_few_queries_and_a_branch_that_learnt_nothing_are_said(tmp_path: Path) -> None:
    found = " ".join(warnings(_results(tmp_path, NAMES, queries=FEW - 1, mAP_untrained=0.95)))
    assert f"the test has {FEW - 1} queries and 6,978 images" in found
    assert "no better than the same branch before training" in found


def test_drawn_queries_are_said(tmp_path: Path) -> None:
    found = warnings(_results(tmp_path, ["drawn queries"], protocol="drawn"))
    assert "drawn by a rule in the config, not published" in found[0]
