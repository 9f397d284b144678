"""Queries with their best matches, and what became of the other pictures of their person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.images import ImageFile
from data_catalog.row_tables import corners
from data_catalog.snapshot import Snapshot
from flows.report.content import Corners, Strip, Tile
from flows.report.pictures import Crops, crop_people
from flows.report.results import EvaluationFiles
from flows.report.scenes import spread
from flows.report.test_pixels import TestPixels, are_found, best_overlaps, rows_of
from personsearch_core.drawing import as_data_uri
from personsearch_core.evaluation.matching import match_threshold

SHOWN_MISSES = 3
"""Tiles of each kind of people that are not among the matches."""
_TOUCHES = 0.2
"""Minimum IoU with a person of a detection that is not background, though it fails the protocols' rule."""


def draw_strips(test: TestPixels, results: EvaluationFiles, count: int, ranks: int) -> list[Strip]:
    """The `count` hardest queries by AP, then as many spread over the rest, each with its best matches.

    Empty if nothing was detected.
    """
    if not len(results.matches):
        return []
    return draw_queries(test, results, choose_queries(results.per_query, count), ranks)


def draw_queries(
    test: TestPixels, results: EvaluationFiles, scored: Sequence[Mapping[str, Any]], ranks: int
) -> list[Strip]:
    """A strip for each of these rows of `per_query`.

    Raises StageError if an image cannot be read.
    """
    wanted = pa.array([row["query_id"] for row in scored], pa.string())
    protocol = results.settings[0]["protocol"]
    queries = _queries(test.view.snapshot, protocol, wanted)
    matches = results.matches.filter(pc.is_in(results.matches["query_id"], value_set=wanted))
    matches = matches.filter(pc.less_equal(matches["rank"], ranks)).sort_by("rank").to_pylist()
    of_queries = (pc.field("protocol") == protocol) & pc.field("query_id").isin(wanted)
    listed = test.view.snapshot.table("gallery", filter=of_queries & pc.field("is_positive"))
    parts = []
    for row in scored:
        query = queries[row["query_id"]]
        ranked = [match for match in matches if match["query_id"] == row["query_id"]]
        truths = _truths(test, listed, query, row["n_truths"])
        parts.append((row, query, ranked, _outcome(test, results, truths, ranked)))
    crops = _crop(test, [each for _, query, ranked, left in parts for each in (query, *ranked, *left.shown)])
    return [_strip(test, row, query, ranked, left, crops) for row, query, ranked, left in parts]


def choose_queries(per_query: pa.Table, count: int) -> list[dict[str, Any]]:
    """The `count` rows with the lowest AP, hardest first, then `count` spread over the rest, by AP.

    Queries without a match in the gallery come last.
    """
    nothing_to_find = pc.equal(per_query["n_truths"], 0)
    ordered = per_query.append_column("nothing_to_find", nothing_to_find).sort_by(
        [("nothing_to_find", "ascending"), ("ap", "ascending"), ("query_id", "ascending")]
    )
    hardest, rest = ordered.slice(0, count), ordered.slice(count)
    return [*hardest.to_pylist(), *rest.take(spread(len(rest), count)).to_pylist()]


@dataclass(frozen=True)
class _Outcome:
    """The query's person in other images: boxes that no shown match found, by what became of them.

    None of both where the protocol's own count of the people to find is another.
    """

    missed: Sequence[dict[str, Any]] | None = None
    lower: Sequence[dict[str, Any]] | None = None

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [*(self.lower or ())[:SHOWN_MISSES], *(self.missed or ())[:SHOWN_MISSES]]


def _truths(
    test: TestPixels, listed: pa.Table, query: dict[str, Any], n_truths: int
) -> list[dict[str, Any]] | None:
    """The boxes to find: those listed for the query, where the protocol has lists, or else its person's in
    other images. None if they are not as many as the evaluation counted.
    """
    if len(listed):
        found = listed.filter(pc.equal(listed["query_id"].cast(pa.string()), query["query_id"])).to_pylist()
    else:
        people = test.people.filter(pc.equal(test.people["person_id"], query["person_id"]))
        found = people.filter(pc.not_equal(people["image_id"], query["image_id"])).to_pylist()
    return found if len(found) == n_truths else None


def _outcome(
    test: TestPixels,
    results: EvaluationFiles,
    truths: Sequence[dict[str, Any]] | None,
    ranked: Sequence[dict[str, Any]],
) -> _Outcome:
    if truths is None:
        return _Outcome()
    minimum = results.settings[0]["score_threshold"]
    missed: list[dict[str, Any]] = []
    lower: list[dict[str, Any]] = []
    for truth in truths:
        box = np.array([_corners(truth)], np.float32)
        here = [each for each in ranked if each["image_id"] == truth["image_id"]]
        right = [_corners(each) for each in here if each["is_right"]]
        if right and are_found(box, np.array(right, np.float32))[0]:
            continue
        rows = rows_of(test.detections, truth["image_id"])
        rows = rows[test.judged.scores[rows] >= (-np.inf if minimum is None else minimum)]
        is_detected = are_found(box, corners(test.detections.take(rows)))[0]
        (lower if is_detected else missed).append(truth)
    return _Outcome(missed, lower)


def _strip(
    test: TestPixels,
    row: Mapping[str, Any],
    query: dict[str, Any],
    ranked: Sequence[dict[str, Any]],
    left: _Outcome,
    crops: Crops,
) -> Strip:
    matches = []
    for match in ranked:
        style = "right" if match["is_right"] else "wrong"
        matches.append(_tile(test, match, crops, style, _what_it_shows(test, match, query)))
    misses = [
        *(_tile(test, each, crops, "none", "ranked lower") for each in (left.lower or ())[:SHOWN_MISSES]),
        *(_tile(test, each, crops, "none", "not detected") for each in (left.missed or ())[:SHOWN_MISSES]),
    ]
    return Strip(
        query_id=row["query_id"],
        image_id=query["image_id"],
        person_id=query["person_id"],
        ap=row["ap"],
        first_right=row["rank"],
        n_truths=row["n_truths"],
        n_lower=None if left.lower is None else len(left.lower),
        n_missed=None if left.missed is None else len(left.missed),
        query=_tile(test, query, crops, "query", ""),
        matches=matches,
        misses=misses,
    )


def _what_it_shows(test: TestPixels, match: dict[str, Any], query: dict[str, Any]) -> str:
    """What a wrong match shows: another person, a person whom the box does not fit, or no person at all."""
    if match["is_right"]:
        return ""
    people = test.people.take(rows_of(test.people, match["image_id"]))
    box = np.array([_corners(match)], np.float32)
    boxes = corners(people)
    if not len(boxes) or best_overlaps(box, boxes)[0] < _TOUCHES:
        return "background"
    nearest = int(np.argmax(best_overlaps(boxes, box)))
    fits = best_overlaps(boxes, box)[nearest] >= match_threshold(boxes[[nearest]].astype(np.float64))[0]
    is_other = people["person_id"][nearest].as_py() != query["person_id"]
    return "another person" if fits or is_other else "box too far off"


def _queries(snapshot: Snapshot, protocol: str, query_ids: pa.Array) -> dict[str, dict[str, Any]]:
    """The wanted queries by id; does not read the protocol's galleries, which can be huge."""
    where = (pc.field("protocol") == protocol) & pc.field("query_id").isin(query_ids)
    return {row["query_id"]: row for row in snapshot.table("queries", filter=where).to_pylist()}


def _crop(test: TestPixels, rows: Sequence[dict[str, Any]]) -> Crops:
    wanted: dict[ImageFile, list[Corners]] = {}
    for row in rows:
        boxes = wanted.setdefault(test.image_of(row["image_id"]), [])
        if _corners(row) not in boxes:
            boxes.append(_corners(row))
    return crop_people(wanted, test.hidden)


def _tile(test: TestPixels, row: dict[str, Any], crops: Crops, style: str, note: str) -> Tile:
    crop = crops[test.image_of(row["image_id"]), _corners(row)]
    return Tile(
        picture=as_data_uri(crop),
        width=crop.width,
        height=crop.height,
        image_id=row["image_id"],
        style=style,
        note=note,
        rank=row.get("rank", 0),
        similarity=row.get("similarity", 0.0),
    )


def _corners(row: dict[str, Any]) -> Corners:
    return row["x1"], row["y1"], row["x2"], row["y2"]
