"""Mutants are valid Python, each another program than the others and than the code as it is."""

from __future__ import annotations

import ast

import pytest

from tests.campaigns.mutants import GROUPS, PROJECT, draw
from tests.campaigns.mutations import mutations

SOURCE = '''
"""A docstring with 3 words - or so."""
import logging
log = logging.getLogger(__name__)

def area(box: tuple[int, int], limit: float = 2, *, whole: bool = True) -> float:
    """At 1 and 2."""
    log.info("at %s", 1 + 2)
    width, height = box[0] - 1, box[1]
    if not whole and width < limit:
        raise ValueError(f"less than {limit + 1}: {max(1, 2)}")
    width = max(width, limit)
    return width * height + sum([1, 2])
'''


def changes(source: str, *functions: str) -> set[tuple[str, str]]:
    return {(each.before, each.after) for each in mutations(source, functions)}


def test_every_kind_of_mistake_is_made() -> None:
    found = changes(SOURCE)
    assert {
        ("width < limit", "(width <= limit)"),
        ("width < limit", "(width >= limit)"),
        ("box[0] - 1", "(box[0] + 1)"),
        ("not whole and width < limit", "(not whole or width < limit)"),
        ("not whole", "(whole)"),
        ("True", "False"),
        ("2", "3"),
        ("max(width, limit)", "max(limit, width)"),
        ("[1, 2]", "([1])"),
        ("width = max(width, limit)", "pass"),
    } <= found


def test_what_is_only_said_stays() -> None:
    texts = ast.parse(SOURCE)
    for each in mutations(SOURCE):
        mutant = ast.parse(each.source)
        assert ast.get_docstring(mutant) == ast.get_docstring(texts)
        assert "log.info('at %s', 1 + 2)" in ast.unparse(mutant)
        assert "box: tuple[int, int]" in each.source
        assert each.before.startswith("raise") or "{limit + 1}: {max(1, 2)}" in each.source


def test_only_the_functions_that_are_named_change() -> None:
    source = "def one():\n    return 1\n\ndef two():\n    return 2\n"
    assert changes(source, "two") == {("2", "3"), ("2", "1")}


@pytest.mark.parametrize("group", GROUPS)
def test_mutants_are_valid_and_different(group: str) -> None:
    drawn = draw(group, 12, seed=5)
    assert drawn == draw(group, 12, seed=5) and drawn != draw(group, 12, seed=6)
    programs = {(each.file, ast.dump(ast.parse(each.mutation.source))) for each in drawn}
    assert len(programs) == 12
    for each in drawn:
        assert ast.dump(ast.parse((PROJECT / each.file).read_text())) != ast.dump(
            ast.parse(each.mutation.source)
        )
        assert (PROJECT / each.file).is_file() and len({mutant.mutation.operator for mutant in drawn}) > 3
