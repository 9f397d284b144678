"""What is fuzzed: a valid input, what may be done to it, and what reads it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from tests.fuzz.edits import Edits, Tree, of_tree, read_tree
from tests.fuzz.limits import fault_of


@dataclass(frozen=True)
class Target:
    """One kind of input.

    write: a valid input into an empty folder. attempt: reads the folder; free to write beside it. inputs: the
    edits to try, by default of any file.
    """

    name: str
    write: Callable[[Path], object]
    attempt: Callable[[Path], object]
    inputs: Callable[[Tree], SearchStrategy[Edits]] = of_tree
    cpu_seconds: int = 10
    """That one attempt may take."""

    @cached_property
    def tree(self) -> Tree:
        """The files of the valid input."""
        with tempfile.TemporaryDirectory() as folder:
            self.write(Path(folder))
            return read_tree(Path(folder))


def all_of(actions: Iterable[Callable[[], object]]) -> None:
    """Do all, though one may refuse what it is given; raises a faulty error at once, else the last one."""
    refused: Exception | None = None
    for action in actions:
        try:
            action()
        except Exception as error:
            if fault_of(error) is not None:
                raise
            refused = error
    if refused is not None:
        raise refused
