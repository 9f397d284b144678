"""Units are read a few at a time, and put beside those that are kept, without all rows in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_catalog.adapters import Unit
from data_catalog.ingest import _chunks, _is_long
from data_catalog.reuse import KeptSources, merged
from data_catalog.rows import Rows, Tables, to_tables


def of_units(*numbers: int) -> Tables:
    rows = [Rows(f"u{number}") for number in numbers]
    for each in rows:
        each.images([f"{each.source_file}.jpg"], "a.jpg", "train")
    return to_tables(rows)


def test_new_rows_are_merged_one_part_at_a_time() -> None:
    units = [Unit(f"u{number}") for number in range(9)]
    given: list[int] = []

    def parts() -> Iterator[Tables]:
        for number in (1, 2, 4, 7):
            given.append(number)
            yield of_units(number)

    found = merged(KeptSources(frozenset(), of_units(8, 0, 3, 5, 6)), parts(), units)
    first = next(found)
    assert given == [1]
    orders = [tables.images["image_id"].to_pylist() for tables in (first, *found)]
    assert orders == [
        ["u0.jpg", "u1.jpg"],
        ["u2.jpg"],
        ["u3.jpg", "u4.jpg"],
        ["u5.jpg", "u6.jpg", "u7.jpg"],
        ["u8.jpg"],
    ]


def test_long_files_are_chunks_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_catalog.ingest.LONG", 10)
    sizes = {"a": 4, "b": 4, "c": 30, "d": 8, "e": 8}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    chunks = _chunks(tmp_path, [Unit(name) for name in sizes])
    assert [[unit.source for unit in chunk] for chunk in chunks] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [_is_long(tmp_path, chunk) for chunk in chunks] == [False, True, False, False]
