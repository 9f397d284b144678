"""Numbers and identities are read one way, however an exporter writes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.ids import identity, number, whole


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_is_one_however_it_is_written(value: int) -> None:
    written: list[Any] = [value, float(value), str(value), f" {value} ", f"{value}.0", f"{value:.17e}"]
    assert {whole(each) for each in written} == {value}
    assert {identity(each) for each in written} == {None if value < 0 else str(value)}


@pytest.mark.parametrize("value", [None, True, [], {}, "", "x", "1.5", 1.5, "nan", math.inf, "1e300", "1,5"])
def test_what_is_not_a_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a"):
        whole(value)


@pytest.mark.parametrize("value", ["1.000e+00", "1.", " 1 ", "01", 1, 1.0])
def test_one_in_all_its_spellings(value: Any) -> None:
    assert whole(value) == 1 and number(value) == 1.0


@pytest.mark.parametrize("value", [None, math.nan, "", " ", "nan", -1, -2.0, "-1", "-1.0", "-1.000e+00"])
def test_unknown_people(value: Any) -> None:
    assert identity(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0007", "0007"),
        ("7.0", "7"),
        (0, "0"),
        ("p10581", "p10581"),
        ("1e3", "1e3"),
        ("person-1", "person-1"),
    ],
)
def test_identities(value: Any, text: str) -> None:
    assert identity(value) == text


@pytest.mark.parametrize("value", [7.5, "7.5", True, [7], {"id": 7}, math.inf])
def test_what_cannot_be_an_identity(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a"):
        identity(value)
