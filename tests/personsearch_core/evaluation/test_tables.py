"""Problems in files of the exchange format are named: which file, row and column, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.searches import search_prw
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.records import Detections, GalleryLists, GroundTruth, Queries

IMAGES = tables.Names.of("image", ["a.jpg", "b.jpg"])


def detection_columns() -> dict[str, Any]:
    return {
        "image": ["a.jpg", "a.jpg", "b.jpg"],
        "x1": [0.0, 5.0, 0.0],
        "y1": [0.0, 5.0, 0.0],
        "x2": [10.0, 15.0, 10.0],
        "y2": [20.0, 25.0, 20.0],
        "score": [0.9, 0.8, 0.7],
        "embedding": [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]],
    }


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "detections.parquet"
    columns = {name: value for name, value in (detection_columns() | changes).items() if value is not None}
    pq.write_table(pa.table(columns), path)
    return path


def read(path: Path) -> Detections:
    return tables.detections_from(tables.open_detections(path, embeddings=True), IMAGES)


def test_a_good_table(tmp_path: Path) -> None:
    found = read(write(tmp_path))
    assert found.image.tolist() == [0, 0, 1]
    assert found.boxes[1].tolist() == [5, 5, 15, 25]
    assert found.embeddings.dtype == np.float32 and found.embeddings.shape == (3, 2)


@pytest.mark.parametrize(
    "type_",
    [
        pa.list_(pa.float32(), 2),
        pa.list_(pa.float64()),
        pa.large_list(pa.float16()),
        pa.list_(pa.float16(), 2),
    ],
)
def test_any_kind_of_list_will_do(tmp_path: Path, type_: pa.DataType) -> None:
    values = [np.array(row, np.float16) for row in detection_columns()["embedding"]]
    found = read(write(tmp_path, embedding=pa.array(values, pa.list_(pa.float16())).cast(type_)))
    np.testing.assert_allclose(found.embeddings[0], [1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": ["a.jpg", "c.jpg", "b.jpg"]}, r"detections.parquet: row 1: unknown image 'c.jpg'"),
        ({"image": ["a.jpg", None, "b.jpg"]}, r"row 1: unknown image"),
        ({"embedding": [[1.0, 0.0], [float("nan"), 1.0], [0.6, 0.8]]}, r"row 1: embedding holds NaN"),
        ({"embedding": [[1.0, 0.0], [1.0, None], [0.6, 0.8]]}, r"row 1: embedding holds a null"),
        ({"embedding": [[1.0, 0.0], [1.0], [0.6, 0.8]]}, r"row 1: embedding has 1 numbers, row 0 has 2"),
        ({"embedding": [[1.0, 0.0], None, [0.6, 0.8]]}, r"row 1: embedding is null"),
        ({"embedding": [1.0, 2.0, 3.0]}, r"column 'embedding' must hold lists"),
        ({"embedding": [["1", "0"]] * 3}, r"column 'embedding' must hold lists of numbers, not list<"),
        ({"embedding": [[[1.0], [0.0]]] * 3}, r"column 'embedding' must hold lists of numbers, not list<"),
        ({"image": [["a.jpg"]] * 3}, r"detections.parquet: column 'image' must hold names, not list<"),
        ({"image": [b"\xff"] * 3}, r"column 'image' must hold names, not binary"),
        (
            {"image": pa.array([b"\xff"] * 3).view(pa.string())},
            r"'image' cannot be read as text: .*Invalid UTF8",
        ),
        ({"score": [[0.9], [0.8], [0.7]]}, r"column 'score' must hold numbers, not list<"),
        ({"score": [0.9, 1e300, 0.7]}, r"row 1: score is inf"),
        ({"embedding": None}, r"column 'embedding' is missing; it has image, x1"),
        ({"score": [0.9, float("inf"), 0.7]}, r"row 1: score is inf"),
        ({"score": [0.9, None, 0.7]}, r"row 1: score is null"),
        ({"score": ["high", "low", "low"]}, r"column 'score' must hold numbers"),
        ({"x2": [10.0, 4.0, 10.0]}, r"row 1: box .* ends before it starts"),
        (
            {name: [values[0], *values[:-1]] for name, values in detection_columns().items()},
            r"duplicate rows: 0 and 1 are both",
        ),
        ({name: pa.array(v).slice(0, 0) for name, v in detection_columns().items()}, r"the table is empty"),
    ],
)
def test_problems_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PersonSearchError, match=message):
        read(write(tmp_path, **changes))


def test_what_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "detections.parquet"
    with pytest.raises(PersonSearchError, match=r"detections.parquet does not exist"):
        tables.open_detections(path, embeddings=True)
    path.write_bytes(b"image,x1\n")
    with pytest.raises(PersonSearchError, match=r"not a readable Parquet file"):
        tables.open_detections(path, embeddings=True)


def test_unsorted_rows_are_named_and_change_nothing(tmp_path: Path) -> None:
    order = [0, 2, 1]
    shuffled = {name: [values[i] for i in order] for name, values in detection_columns().items()}
    with pytest.warns(tables.TableWarning, match=r"unsorted: row 2 goes back to image a.jpg"):
        found = read(write(tmp_path, **shuffled))
    np.testing.assert_array_equal(found.select(np.array(order)).boxes, read(write(tmp_path)).boxes)


def query_columns() -> dict[str, Any]:
    box = {name: detection_columns()[name] for name in ("image", "x1", "y1", "x2", "y2", "embedding")}
    return {"query": [0, 1, 2], **box, "person_id": ["p", "q", "p"]}


def test_queries_come_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    reverse = {name: values[::-1] for name, values in query_columns().items()}
    pq.write_table(pa.table(reverse), path)
    with pytest.warns(tables.TableWarning, match=r"row 1 is query 1 after 2"):
        table = tables.open_queries(path, person_id=True)
    queries = tables.queries_from(table, IMAGES, tables.Names.of("person", ["p", "q"]))
    assert queries.image.tolist() == [0, 0, 1]
    assert queries.person_ids().tolist() == [0, 1, 0]


def test_repeated_queries_and_images(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    pq.write_table(pa.table(query_columns() | {"query": [0, 1, 1]}), path)
    with pytest.raises(PersonSearchError, match=r"duplicate rows: 1 and 2 are both {'query': 1}"):
        tables.open_queries(path, person_id=True)
    pq.write_table(pa.table({"image": ["a.jpg", "a.jpg"]}), path)
    with pytest.raises(PersonSearchError, match=r"duplicate rows"):
        tables.open_images(path, camera_id=False)


def test_unlabelled_people_and_ignore_regions(tmp_path: Path) -> None:
    path = tmp_path / "boxes.parquet"
    box = {name: [0.0, 1.0] for name in ("x1", "y1")} | {name: [9.0, 9.0] for name in ("x2", "y2")}
    columns = {"image": ["a.jpg", "b.jpg"], **box, "person_id": [None, "p"], "ignore": [True, None]}
    pq.write_table(pa.table(columns), path)
    truth = tables.ground_truth_from(tables.open_boxes(path), IMAGES, tables.Names.of("person", ["p"]))
    assert truth.person_id.tolist() == [-1, 0]
    assert truth.ignore.tolist() == [True, False]


@pytest.mark.parametrize(
    ("ignore", "wanted"),
    [
        ([1, None], [True, False]),
        ([None, None], [False, False]),
        ([0, 2], r"boxes.parquet: row 1: ignore is 2; give 0 or 1"),
        (["yes", "no"], r"column 'ignore' must hold true and false, or 0 and 1, not string"),
        ([1.0, 0.0], r"column 'ignore' must hold true and false, or 0 and 1, not double"),
    ],
)
def test_flags_of_ignore_regions(tmp_path: Path, ignore: list[Any], wanted: list[bool] | str) -> None:
    path = tmp_path / "boxes.parquet"
    box = {name: [0.0, 1.0] for name in ("x1", "y1")} | {name: [9.0, 9.0] for name in ("x2", "y2")}
    columns = {"image": ["a.jpg", "b.jpg"], **box, "person_id": [None, "p"], "ignore": ignore}
    pq.write_table(pa.table(columns), path)
    table, people = tables.open_boxes(path), tables.Names.of("person", ["p"])
    if isinstance(wanted, str):
        with pytest.raises(PersonSearchError, match=wanted):
            tables.ground_truth_from(table, IMAGES, people)
    else:
        assert tables.ground_truth_from(table, IMAGES, people).ignore.tolist() == wanted


def test_gallery_lists_keep_the_order_of_queries_and_rows() -> None:
    gallery = pa.table(
        {
            "query_id": ["7", "5", "7"],
            "image_id": ["b.jpg", "a.jpg", "a.jpg"],
            "is_positive": [True, False, False],
            **{name: pa.array([1.0, None, None], pa.float32()) for name in ("x1", "y1", "x2", "y2")},
        }
    )
    lists = tables.gallery_lists_from(gallery, ["7", "5"], IMAGES)
    assert lists.offsets.tolist() == [0, 2, 3]
    assert lists.image.tolist() == [1, 0, 0]
    with pytest.raises(PersonSearchError, match=r"unknown query '5'"):
        tables.gallery_lists_from(gallery, ["7"], IMAGES)


def test_records_check_what_they_are_given() -> None:
    box = np.zeros((1, 4), np.float32)
    one, person = np.zeros(1, np.int64), np.ones((1, 2), np.float32)
    with pytest.raises(PersonSearchError, match=r"2 rows of 'scores', but 1 of 'image'"):
        Detections(one, box, np.zeros(2, np.float32), person)
    with pytest.raises(PersonSearchError, match=r"'embeddings' of row 0 is NaN"):
        Detections(one, box, np.zeros(1, np.float32), person * np.nan)
    with pytest.raises(PersonSearchError, match=r"shape \(1, 4\)"):
        GroundTruth(one, box[:, :2], one)
    with pytest.raises(PersonSearchError, match=r"at least one query"):
        Queries(one[:0], box[:0], person[:0])
    with pytest.raises(PersonSearchError, match=r"give person ids"):
        Queries(one, box, person).person_ids()
    with pytest.raises(PersonSearchError, match=r"offsets"):
        GalleryLists(np.array([0, 2]), one, one.astype(bool), box)
    detections = Detections(one, box, np.ones(1, np.float32), np.ones((1, 3), np.float32))
    queries, truth = Queries(one, box, person, one), GroundTruth(one, box, one)
    with pytest.raises(PersonSearchError, match=r"embeddings of 2 numbers, detections of 3"):
        search_prw(detections, queries, truth, np.array([1]))
