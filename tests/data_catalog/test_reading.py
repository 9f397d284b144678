"""What goes wrong in an adapter of one's own is told in one message, with the file that was read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_catalog.adapters import Layout, Unit
from data_catalog.errors import CatalogError
from data_catalog.ingest import ingest_root
from data_catalog.rows import _MEANT, Rows
from data_catalog.schema import BOXES, IMAGES

Read = Callable[[str], Any]


UNITS = (Unit("a.txt"), Unit("b.txt"))


class Own:
    """An adapter of two files, whose reading is given."""

    name, version = "own", 1
    options: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, read: Read, units: Any = UNITS) -> None:
        self._read, self._units = read, units

    def discover(self, root: Path, options: Any) -> Any:
        return Layout(self._units)

    def read(self, root: Path, unit: Unit, options: Any) -> Any:
        return self._read(unit.source)


def rows(source: str, **more: Any) -> Rows:
    made = Rows(source)
    made.images([source], [f"{source}.jpg"], "train")
    made.boxes([source], np.array([[0, 0, 5, 5]]), "train", [1], **more)
    return made


def ingest(tmp_path: Path, adapter: Any) -> dict[str, int]:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).touch()
    (tmp_path / "work").mkdir()
    return ingest_root(tmp_path, adapter, tmp_path / "work", read_images=False)


def twice(source: str) -> Any:
    made = rows(source)
    yield made
    yield made


def returns_at_its_end(source: str) -> Any:
    if source == "never":
        yield
    return rows(source)


def yields(value: Any) -> Read:
    return lambda source: iter([value])


READS: dict[str, tuple[Read, str]] = {
    "return for yield": (rows, "read returns its Rows: write `yield rows`"),
    "nothing": (lambda source: None, r"read gives nothing \(None\): end it with `yield rows`"),
    "a number": (lambda source: 3, "read gives a int"),
    "return in a generator": (returns_at_its_end, "read returns a Rows at its end"),
    "tables": (lambda source: iter([rows(source).tables()]), "read yields a Tables: yield Rows"),
    "a list of rows": (lambda source: iter([[rows(source)]]), "read yields a list"),
    "None": (yields(None), r"read yields nothing \(None\)"),
    "twice": (twice, "read yields Rows that it has yielded before"),
    "another unit's": (
        lambda source: iter([rows("b.txt")]),
        "read yields rows of b.txt, which is another unit",
    ),
    "a column of its own": (
        lambda source: iter([rows(source, identity=["p"])]),
        r"^a\.txt: rows\.boxes has no column 'identity' but .*; did you mean 'person_id'\?$",
    ),
    "a column too long": (
        lambda source: iter([rows(source, person_id=["p", "q"])]),
        r"a\.txt: column 'person_id' has 2 values for 1 rows",
    ),
    "a column of another type": (
        lambda source: iter([rows(source, visibility=["much"])]),
        r"a\.txt: column 'visibility': a value cannot be stored as float",
    ),
    "an error": (
        lambda source: (1 / 0 for _ in source),
        r"fails at a\.txt: ZeroDivisionError.*test_reading\.py, line \d+",
    ),
}


@pytest.mark.parametrize("name", READS)
def test_a_reading_that_goes_wrong(name: str, tmp_path: Path) -> None:
    read, message = READS[name]
    with pytest.raises(CatalogError, match=message) as raised:
        ingest(tmp_path, Own(read))
    assert "a.txt" in str(raised.value) and "\n" not in str(raised.value)


def test_a_reading_that_is_right(tmp_path: Path) -> None:
    assert ingest(tmp_path, Own(lambda source: iter([rows(source, person_id=["p"])])))["ids"] == 1


def test_a_list_of_rows_is_as_good(tmp_path: Path) -> None:
    assert ingest(tmp_path, Own(lambda source: [rows(source)]))["boxes"] == 2


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (None, r"the units of its Layout are nothing \(None\)"),
        (("a.txt",), "among the units of its Layout is a str"),
        ((Unit("a.txt"), Unit("a.txt")), "two units have the source"),
        (iter([Unit("a.txt")]), "the units of its Layout are a .*iterator"),
    ],
)
def test_a_layout_that_is_none(units: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=message):
        ingest(tmp_path, Own(rows, units))


def test_a_discover_that_returns_nothing(tmp_path: Path) -> None:
    adapter = Own(rows)
    adapter.discover = lambda root, options: None  # type: ignore[method-assign]
    with pytest.raises(CatalogError, match=r"discover gives nothing \(None\).*return Layout"):
        ingest(tmp_path, adapter)


@pytest.mark.parametrize("kind", ["images", "boxes", "queries", "gallery"])
def test_no_column_is_dropped(kind: str) -> None:
    given: dict[str, tuple[Any, ...]] = {
        "images": (["a"], ["a.jpg"], "train"),
        "boxes": (["a"], np.zeros((1, 4)), "train", [1]),
        "queries": ("p", ["q"], ["a"], np.zeros((1, 4)), ["x"], [1]),
        "gallery": ("p", ["q"], ["a"], [True]),
    }
    for name in (
        "identity",
        "sha256",
        "n_boxes",
        "source_unit",
        "dataset",
        "persn_id",
        "visibilty",
        "pid",
        "x",
    ):
        with pytest.raises(CatalogError, match=rf"f\.txt: rows\.{kind} has no column '{name}' but"):
            getattr(Rows("f.txt"), kind)(*given[kind], **{name: [1]})


@pytest.mark.parametrize(
    ("name", "meant"),
    [("identity", "person_id"), ("persn_id", "person_id"), ("crowd", "ignore"), ("visibilty", "visibility")],
)
def test_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(CatalogError, match=f"did you mean '{meant}'"):
        Rows("f.txt").boxes(["a"], np.zeros((1, 4)), "train", [1], **{name: [1]})


def test_known_synonyms_mean_columns_that_exist() -> None:
    columns = {*IMAGES.names, *BOXES.names}
    assert set(_MEANT.values()) <= {*columns, "xyxy"} and not set(_MEANT) & {*columns} - {
        "x1",
        "y1",
        "x2",
        "y2",
    }
