"""Keys and view digests are constants: what users have computed is rebuilt only where that is meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_catalog.errors import CatalogError
from data_catalog.forgotten import FORGOTTEN
from data_catalog.rows import Rows, to_tables
from data_catalog.schema import GALLERY, QUERIES, TABLES
from data_catalog.snapshot import Snapshot, SnapshotWriter, table_path, write_table
from data_catalog.views import Use
from flows.plan.views import ViewSpec
from storage.digests import digest_parts
from tests.flows import golden_keys

GOLDEN = json.loads(golden_keys.FILE.read_text())

SPLIT: dict[Use, str] = {"boxes": "train", "people": "train", "test": "test", "truth": "test"}
DIGESTS: dict[Use, str] = {
    "boxes": "c31d9a76dff6a2a374ae24f15b6b8eed4420ba3de6a7430fd422ccb4ab30e53c",
    "people": "be972a0fb0454f2e8ab5911b2f000f0c46469197158147d4d9e5b68272f230df",
    "test": "170c29b2a425299d97830d47788497c9de196156f8f5e1d43f0ecd3817f7f841",
    "truth": "c9c1bff36127b219e4c72de95c0644a8595b4b2a94cdd460a3761917856b6c0d",
}
"""Of the views of `drawn_snapshot`."""
_PIXELS = {"image_id", "width", "height", "sha256", "split", "decoding"}
_BOXES = {"image_id", "x1", "y1", "x2", "y2", "ignore", "split"}
_PEOPLE = _BOXES | {"box_id", "person_id"}
COVERED: dict[Use, dict[str, set[str]]] = {
    "boxes": {"images": _PIXELS, "boxes": _BOXES},
    "people": {"images": _PIXELS, "boxes": _PEOPLE},
    "test": {"images": _PIXELS, "boxes": _PEOPLE, "queries": {"image_id", "x1", "y1", "x2", "y2"}},
    "truth": {
        "images": {"image_id", "camera_id", "split"},
        "boxes": _PEOPLE,
        "queries": set(QUERIES.names),
        "gallery": set(GALLERY.names) - {"protocol"},  # the file's name says it
    },
}
"""For each use of a view, the columns of each table that make its digest another one when they change."""


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return golden_keys.current()


@pytest.mark.parametrize("config", golden_keys.shipped_configs())
def test_every_stage_keeps_its_key(config: str, now: dict[str, Any]) -> None:
    def whole(all_of: dict[str, Any]) -> dict[str, Any]:
        stages = all_of["configs"][config]
        return {
            name: {**stage, "recipe": all_of["recipes"][stage["recipe"]]} for name, stage in stages.items()
        }

    assert whole(now) == whole(GOLDEN)


def test_no_config_lost_its_keys(now: dict[str, Any]) -> None:
    assert now["configs"].keys() == GOLDEN["configs"].keys()


def drawn_snapshot(folder: Path) -> Path:
    """Two training images and one of test, with people, a stranger, a region to ignore, and queries."""
    rows = Rows("annotations.txt", source_unit="annotations.txt")
    ids = ["a", "b", "t"]
    splits = ["train", "train", "test"]
    rows.images(
        ids,
        [f"{name}.jpg" for name in ids],
        splits,
        width=[640, 640, 320],
        height=[480, 480, 240],
        camera_id=[1, 2, None],
        sequence_id=["s1", "s1", None],
        frame_index=[1, 2, None],
    )
    xyxy = np.array([[1, 2, 30, 60], [5.5, 6, 50, 90], [-3, 0, 20, 40], [10, 10, 40, 80], [60, 10, 90, 80]])
    rows.boxes(
        ["a", "a", "b", "t", "t"],
        xyxy,
        ["train", "train", "train", "test", "test"],
        [1, 2, 3, 4, 5],
        category=["person", "person", "crowd", "person", "person"],
        category_raw=[1, 1, 13, 1, 1],
        ignore=[False, False, True, False, False],
        ignore_reason=[None, None, "crowd", None, None],
        person_id=["7", None, None, "7", "8"],
        person_id_raw=["7", "-2", None, "7", "8"],
        visibility=[0.5, 1.0, None, 1.0, 1.0],
        hard=[False, True, None, False, False],
    )
    rows.queries("prw", ["q1"], ["t"], xyxy[3:4], ["7"], [6])
    rows.gallery("prw", ["q1"], ["t"], [True], x1=[10.0], y1=[10.0], x2=[40.0], y2=[80.0])
    tables = to_tables([rows])
    with SnapshotWriter(folder, "drawn") as writer:
        writer.write(tables, ["1" * 64, "2" * 64, "3" * 64])
        writer.finish(
            tables.queries,
            lambda: {
                "adapter": "prw",
                "adapter_version": 1,
                "root_fingerprint": "0",
                "counts_expected": [],
                "counts_found": [],
            },
        )
    return folder


def digest(snapshot: Path, use: Use) -> str:
    spec = ViewSpec("drawn", SPLIT[use], use, protocols=("prw",) if use == "truth" else ())
    return digest_parts(spec.of(snapshot).digests(use, spec.protocols))


@pytest.mark.parametrize("use", SPLIT)
def test_views_keep_their_digests(use: Use, tmp_path: Path) -> None:
    assert digest(drawn_snapshot(tmp_path), use) == DIGESTS[use]


def change(snapshot: Path, table: str, column: str, row: int, value: object = None) -> None:
    """Give one value of a snapshot another value of its type."""
    path = table_path(snapshot, table) / "prw.parquet" if table == "gallery" else table_path(snapshot, table)
    whole = Snapshot(snapshot).table(table)
    field = whole.schema.field(column)
    values = whole[column].to_pylist()
    plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if value is not None:
        values[row] = value
    elif pa.types.is_string(plain):
        values[row] = f"{values[row]}-"
    elif pa.types.is_boolean(plain):
        values[row] = not values[row]
    else:
        values[row] = (values[row] or 0) + 1
    changed = pa.chunked_array([pa.array(values, plain).cast(field.type)])
    write_table(path, whole.set_column(whole.schema.get_field_index(column), field, changed))


def in_view(snapshot: Path, table: str, use: Use) -> int:
    """The first row of a table that the use's split holds."""
    columns = Snapshot(snapshot).table(table).column_names
    if "split" not in columns:
        return 0
    return Snapshot(snapshot).table(table, ["split"])["split"].to_pylist().index(SPLIT[use])


@pytest.mark.parametrize(
    ("use", "table", "column"),
    [
        (use, table, name)
        for use in SPLIT
        for table in ("images", "boxes", "queries", "gallery")
        for name in TABLES[table].names
    ],
)
def test_a_view_depends_on_its_columns_alone(use: Use, table: str, column: str, tmp_path: Path) -> None:
    snapshot = drawn_snapshot(tmp_path)
    before = digest(snapshot, use)
    change(snapshot, table, column, in_view(snapshot, table, use))
    try:
        after: str | None = digest(snapshot, use)
    except CatalogError:  # the protocol's name leads to nothing, and so no stage is made
        after = None
    assert (after != before) == (column in COVERED[use].get(table, set()))


@pytest.mark.parametrize("use", SPLIT)
def test_a_view_of_test_pixels_depends_on_whom_it_forgets(use: Use, tmp_path: Path) -> None:
    """Nothing of them is described; elsewhere they are regions to ignore, like others."""
    found = {digest(drawn_snapshot(tmp_path / "whole"), use)}
    first = in_view(tmp_path / "whole", "boxes", use)
    for row in (first, first + 1):
        snapshot = drawn_snapshot(tmp_path / f"{row}")
        change(snapshot, "boxes", "ignore_reason", row, FORGOTTEN)
        found.add(digest(snapshot, use))
    assert len(found) == (3 if use == "test" else 1)


@pytest.mark.parametrize("use", SPLIT)
def test_a_view_depends_on_its_filter(use: Use, tmp_path: Path) -> None:
    view = ViewSpec("drawn", SPLIT[use], use, min_height=75.0).of(drawn_snapshot(tmp_path))
    whole = ViewSpec("drawn", SPLIT[use], use).of(tmp_path)
    assert view.digests(use)["boxes"] != whole.digests(use)["boxes"]


@pytest.mark.parametrize("rows", [(1, 1, 3, 4, 4), (9, 2, 3, 9, 5)], ids=["equal", "falling"])
@pytest.mark.parametrize("use", SPLIT)
def test_a_view_does_not_depend_on_the_order_of_rows_on_the_disk(
    use: Use, rows: tuple[int, ...], tmp_path: Path
) -> None:
    """Boxes of an image go by their source rows, and those of one source row by their names."""
    snapshot = drawn_snapshot(tmp_path)
    for row, source_row in enumerate(rows):
        change(snapshot, "boxes", "source_row", row, source_row)
    spec = ViewSpec("drawn", SPLIT[use], use)
    names = [spec.of(snapshot).boxes["box_id"].to_pylist()]
    before = digest(snapshot, use)
    for table in ("images", "boxes"):
        whole = Snapshot(snapshot).table(table)
        write_table(table_path(snapshot, table), whole.take(np.arange(len(whole))[::-1]))
    names.append(spec.of(snapshot).boxes["box_id"].to_pylist())
    first, second = ("a#1", "a#2") if SPLIT[use] == "train" else ("t#4", "t#5")
    assert names[0] == names[1] and digest(snapshot, use) == before
    assert names[0][:2] == ([first, second] if rows[0] == rows[1] else [second, first])
