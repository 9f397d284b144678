"""Read the inputs of `personsearch score`: Parquet tables and protocol files, as arrays for `evaluate`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.cli.protocol_files import ProtocolTables, Subsets
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.records import FloatArray, GalleryLists, GroundTruth, IntArray, Queries

PROTOCOL = "search"
"""Name of the only protocol of these inputs."""


@dataclass(frozen=True, eq=False)
class SearchFiles:
    """The inputs of a search, and the ascending numbers (q,) that the files give their queries.

    `missing` says why a protocol that may be asked for is not among the inputs.
    """

    inputs: EvaluationInputs
    query: IntArray
    missing: Mapping[str, str] = field(default_factory=dict)


def read_listed(
    found: tables.ParquetTable,
    queries: tables.ParquetTable,
    protocol: ProtocolTables,
    protocol_file: Path,
    subsets: Subsets,
    boxes: Path | None,
    *,
    whole: bool,
) -> SearchFiles:
    """A search with listed galleries, and its subsets: their queries are the table's at the same boxes.

    Images are those of the protocols, of `boxes` and, if `whole`, of the detections.
    """
    box_table = None if boxes is None else tables.open_boxes(boxes, embeddings=True)
    names = [
        column
        for each in (protocol, *subsets.tables.values())
        for column in (each.gallery["image_id"], each.queries["image_id"])
    ]
    names += [found.column("image")] * whole
    names += [] if box_table is None else [box_table.column("image")]
    images = tables.Names.of("image", *names)
    _check_queries(queries, protocol.queries, protocol_file)
    detections = tables.detections_from(found, images)
    asked = tables.queries_from(queries, images)
    protocols = {PROTOCOL: SearchProtocol(asked, _lists(protocol, images))}
    missing = dict(subsets.missing)
    for name, subset in subsets.tables.items():
        rows = _rows_of_boxes(subset.queries, queries)
        if (rows < 0).any():
            first = subset.queries.slice(int((rows < 0).argmax()), 1).to_pylist()[0]
            missing[name] = (
                f"{(rows < 0).sum()} of its {len(rows)} queries are not in {queries.path} by image and box "
                f"(first: query {first['query_id']} in {first['image_id']})"
            )
        else:
            protocols[name] = SearchProtocol(asked.select(rows), _lists(subset, images))
    inputs = EvaluationInputs(detections, len(images), protocols)
    if box_table is not None:
        people = tables.Names.of("person", box_table.column("person_id"))
        truth = tables.ground_truth_from(box_table, images, people)
        inputs = replace(inputs, truth=truth, truth_embeddings=_embeddings(box_table))
    return SearchFiles(inputs, queries.integers("query"), missing)


def _lists(protocol: ProtocolTables, images: tables.Names) -> GalleryLists:
    return tables.gallery_lists_from(protocol.gallery, protocol.queries["query_id"], images)


def _rows_of_boxes(wanted: pa.Table, queries: tables.ParquetTable) -> IntArray:
    """Row of `queries` with each wanted image and box, in whole pixels -> (n,), -1 where there is none."""
    corners = np.stack([wanted[name].to_numpy() for name in tables.BOX], axis=1)
    keys = zip(wanted["image_id"].to_pylist(), np.rint(corners).tolist(), strict=True)
    ours = zip(queries.column("image").to_pylist(), np.rint(queries.boxes()).tolist(), strict=True)
    rows = {(image, *box): row for row, (image, box) in enumerate(ours)}
    return np.array([rows.get((image, *box), -1) for image, box in keys], np.int64)


def _embeddings(boxes: tables.ParquetTable) -> FloatArray | None:
    return boxes.embeddings() if "embedding" in boxes.data.column_names else None


def read_prw(
    detections: Path, queries: Path, images: Path, boxes: Path, *, truth_embeddings: bool = False
) -> SearchFiles:
    """A search among all test images except the query's, with ground truth by identity.

    With `truth_embeddings` those of the boxes are read too, if the table has them.
    """
    image_table = tables.open_images(images, camera_id=True)
    box_table = tables.open_boxes(boxes, embeddings=truth_embeddings)
    query_table = tables.open_queries(queries, person_id=True)
    names = tables.Names.of("image", image_table.column("image"))
    people = tables.Names.of("person", box_table.column("person_id"), query_table.column("person_id"))
    cameras = np.empty(len(names), np.int64)
    cameras[names.index(image_table, "image")] = image_table.integers("camera_id")
    searched = tables.queries_from(query_table, names, people)
    truth = tables.ground_truth_from(box_table, names, people)
    _warn_of_strangers(query_table, boxes, searched, truth)
    found = tables.detections_from(tables.open_detections(detections, embeddings=True), names)
    protocols = {PROTOCOL: SearchProtocol(searched)}
    inputs = EvaluationInputs(found, len(names), protocols, truth, _embeddings(box_table), cameras)
    return SearchFiles(inputs, query_table.integers("query"))


def read_boxes(detections: Path, images: Path, boxes: Path) -> EvaluationInputs:
    """Detections and ground truth, without embeddings."""
    image_table = tables.open_images(images, camera_id=False)
    found_table = tables.open_detections(detections, embeddings=False)
    box_table = tables.open_boxes(boxes)
    names = tables.Names.of("image", image_table.column("image"))
    people = tables.Names.of("person", box_table.column("person_id"))
    found = tables.detections_from(found_table, names)
    return EvaluationInputs(found, len(names), truth=tables.ground_truth_from(box_table, names, people))


def _warn_of_strangers(
    table: tables.ParquetTable, boxes: Path, searched: Queries, truth: GroundTruth
) -> None:
    """A few queries may lack a ground-truth box. If most do, the two files name people differently."""
    strangers = np.flatnonzero(~np.isin(searched.person_ids(), truth.person_id))
    if 2 * len(strangers) > len(searched):
        first = int(strangers[0])
        query, name = table.column("query")[first], table.column("person_id")[first].as_py()
        warnings.warn(
            f"{table.path}: {len(strangers)} of {len(searched)} queries have a person_id that {boxes} does "
            f"not contain (first: query {query}, {name!r}): the ids of the two files do not match. These "
            "queries count as misses",
            tables.TableWarning,
            stacklevel=2,
        )


def _check_queries(table: tables.ParquetTable, protocol: pa.Table, path: Path) -> None:
    """Raise unless the table has the protocol's queries, numbered from 0, in the protocol's images."""
    numbers = table.integers("query")
    expected = np.arange(protocol.num_rows)
    if not np.array_equal(numbers, expected):
        missing, unknown = np.setdiff1d(expected, numbers), np.setdiff1d(numbers, expected)
        fault = f"lacks query {missing[0]}" if len(missing) else f"has a query {unknown[0]}"
        raise PersonSearchError(
            f"{table.path}: {fault}; {path.name} has queries 0 to {len(expected) - 1}, "
            f"{len(missing)} of them are missing here, and {len(unknown)} are unknown"
        )
    ours = np.array(table.column("image").to_pylist(), object)
    theirs = np.array(protocol["image_id"].to_pylist(), object)
    if (ours != theirs).any():
        query = int((ours != theirs).argmax())
        raise PersonSearchError(
            f"{table.path}: query {query} is in image {ours[query]!r}, "
            f"but {path.name} has it in {theirs[query]!r}"
        )
