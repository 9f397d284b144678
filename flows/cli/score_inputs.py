"""Read the inputs of `personsearch score`: Parquet tables and protocol files, as arrays for `evaluate`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.cli.protocol_files import ProtocolTables
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.records import GroundTruth, IntArray, Queries

PROTOCOL = "search"
"""Name of the only protocol of these inputs."""


@dataclass(frozen=True, eq=False)
class SearchFiles:
    """The inputs of a search, and the ascending numbers (q,) that the files give their queries."""

    inputs: EvaluationInputs
    query: IntArray


def read_listed(
    found: tables.Table, queries: tables.Table, protocol: ProtocolTables, protocol_file: Path, *, whole: bool
) -> SearchFiles:
    """A search with listed galleries. Images are those of the protocol and, if `whole`, of the detections."""
    names = [protocol.gallery["image_id"], protocol.queries["image_id"]]
    images = tables.Names.of("image", *names, *([found.column("image")] * whole))
    lists = tables.gallery_lists_from(protocol.gallery, protocol.queries["query_id"], images)
    _check_queries(queries, protocol.queries, protocol_file)
    detections = tables.detections_from(found, images)
    asked = SearchProtocol(tables.queries_from(queries, images), lists)
    return SearchFiles(
        EvaluationInputs(detections, len(images), {PROTOCOL: asked}), queries.integers("query")
    )


def read_prw(detections: Path, queries: Path, images: Path, boxes: Path) -> SearchFiles:
    """A search among all test images except the query's, with ground truth by identity."""
    image_table = tables.open_images(images, camera_id=True)
    box_table = tables.open_boxes(boxes)
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
    inputs = EvaluationInputs(found, len(names), protocols, truth, cameras=cameras)
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


def _warn_of_strangers(table: tables.Table, boxes: Path, searched: Queries, truth: GroundTruth) -> None:
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


def _check_queries(table: tables.Table, protocol: pa.Table, path: Path) -> None:
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
