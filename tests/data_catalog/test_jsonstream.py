"""Arrays read in parts hold what json.loads gives, wherever the blocks end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_catalog import jsonstream
from data_catalog.errors import CatalogError
from data_catalog.jsonstream import top_level_arrays

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(["id", "name", 'a"b', "br{ack]et", "\\"]), VALUES, max_size=4)
SLOW_FOLDER = [HealthCheck.function_scoped_fixture]


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_FOLDER)
@given(
    images=st.lists(OBJECTS, max_size=8),
    other=VALUES,
    block=st.integers(1, 40),
    indent=st.none() | st.just(1),
    ascii_only=st.booleans(),
)
def test_parts_hold_the_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: list[Any],
    other: Any,
    block: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    path = tmp_path / "a.json"
    text = json.dumps({"info": other, "images": images, "x": []}, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode())
    with monkeypatch.context() as patch:
        patch.setattr(jsonstream, "BLOCK", block)
        parts = [part for _, part in top_level_arrays(path, frozenset({"images"}))]
    assert [element for part in parts for element in part.elements()] == images
    lines = b"\n".join(part.lines() for part in parts)
    decoder, found, at, plain = json.JSONDecoder(), [], 0, lines.decode()
    while plain[at:].strip():
        at += len(plain[at:]) - len(plain[at:].lstrip())
        element, at = decoder.raw_decode(plain, at)
        found.append(element)
    assert found == images


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW_FOLDER)
@given(data=st.binary(max_size=60))
def test_any_bytes_end_in_parts_or_one_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    try:
        for _, part in top_level_arrays(path, frozenset({"images"})):
            part.elements()
    except CatalogError as error:
        assert "a.json" in str(error)


@pytest.mark.parametrize("block", [16, jsonstream.BLOCK])
def test_an_empty_array_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(jsonstream, "BLOCK", block)
    path = tmp_path / "a.json"
    path.write_text('{"images": [ ], "x": [1], "images": []}')
    parts = list(top_level_arrays(path, frozenset({"images"})))
    assert [(key, part.elements(), part.count) for key, part in parts] == [("images", [], 0)] * 2


HARD = {
    "escaped quotes": lambda size: b'{"images": [{"a": "' + b'\\"' * (size // 2) + b'"}]}',
    "backslashes": lambda size: b'{"' + b"\\" * (size // 2 * 2) + b'": 1, "images": []}',
    "an escaped key": lambda size: b'{"' + b'\\"' * (size // 2) + b'": 1, "images": []}',
    "a long number": lambda size: b'{"x": ' + b"1" * size + b', "images": []}',
    "many keys": lambda size: b"{" + b'"x":{"y":1},' * (size // 100) + b'"images": []}',
    "many arrays": lambda size: b"{" + b'"images":[],' * (size // 100) + b'"images": []}',
}


@pytest.mark.parametrize("kind", HARD)
def test_work_grows_with_the_file_alone(tmp_path: Path, kind: str) -> None:
    """Four times the bytes take about four times as long, not sixteen times."""

    def seconds(size: int) -> float:
        path = tmp_path / "a.json"
        path.write_bytes(HARD[kind](size))
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            for _, part in top_level_arrays(path, frozenset({"images"})):
                part.elements()
            best = min(best, time.process_time() - started)
        return best

    small, large = seconds(200_000), seconds(800_000)
    assert large < max(8 * small, 0.1)
