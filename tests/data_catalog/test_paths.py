"""Paths that files name: many at once are judged as each by itself."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.paths import path_fault, suspicious

NAMES = st.lists(
    st.sampled_from(["a", "..", ".", "/", "é", "\n", "\\", "~", ":", "x.jpg", "-", "a" * 300]), max_size=8
)


@settings(deadline=None)
@given(st.lists(NAMES.map("".join), max_size=5))
def test_what_is_not_suspicious_has_no_fault(names: list[str]) -> None:
    found = suspicious(pa.array(names, pa.string())).tolist()
    assert all(strange or path_fault(name) is None for name, strange in zip(names, found, strict=True))


@pytest.mark.parametrize("name", ["a.jpg", "train2017/000000000785.jpg", "a_b/c-d/e,f.png"])
def test_usual_names_are_not_suspicious(name: str) -> None:
    assert suspicious(pa.array([name])).tolist() == [False]
