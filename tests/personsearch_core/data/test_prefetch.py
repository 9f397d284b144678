from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import pytest
import torch

from personsearch_core.data.prefetch import brought, in_batches, in_thread, prefetch


def test_results_come_in_order() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(prefetch(slow_first, range(20), threads=4, ahead=5)) == [i * i for i in range(20)]


def test_an_error_comes_in_its_place() -> None:
    def fail_at_three(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = prefetch(fail_at_three, range(10), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_no_more_than_asked_is_computed_ahead() -> None:
    started = []
    lock = threading.Lock()

    def note(item: int) -> int:
        with lock:
            started.append(item)
        return item

    results = prefetch(note, range(100), threads=2, ahead=3)
    next(results)
    time.sleep(0.05)
    assert len(started) <= 5
    results.close()  # type: ignore[attr-defined]


def test_an_iterable_works_ahead_in_a_thread() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number
        raise ValueError("the end")

    found = in_thread(items(), ahead=2)
    assert next(found) == 0
    time.sleep(0.05)
    assert len(taken) <= 4
    rest: list[int] = []
    with pytest.raises(ValueError, match="the end"):
        rest.extend(iter(found))
    assert taken == list(range(10))
    closed = in_thread(items(), ahead=2)
    next(closed)
    closed.close()
    assert len(taken) <= 14


def test_batches_end_with_what_they_are_brought_for() -> None:
    closed: list[str] = []

    def numbers() -> Generator[int, None, None]:
        try:
            yield from range(100)
        finally:
            closed.append("numbers")

    found = brought(in_batches(numbers(), 2), torch.tensor, torch.device("cpu"))
    assert next(found).tolist() == [0, 1] and next(found).tolist() == [2, 3]
    found.close()
    assert closed == ["numbers"]
