"""The examples of docstrings, run with the names that a test gives them."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Mapping
from typing import Any


def check_examples(name: str, value: object, names: Mapping[str, Any]) -> None:
    """Fail unless the docstring of `value` has a section of examples, and they print what it says."""
    text = inspect.getdoc(value) or ""
    assert "Examples\n--------" in text
    test = doctest.DocTestParser().get_doctest(text, dict(names), name, None, 0)
    assert test.examples
    told: list[str] = []
    doctest.DocTestRunner().run(test, out=told.append)
    assert not told, "".join(told)
