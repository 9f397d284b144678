"""Imports run one way: benchmarks -> flows -> personsearch_core, data_catalog, storage; none of these three
knows another.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
ROOMS = ("flows", "personsearch_core", "data_catalog", "storage")
FORBIDDEN = {
    "benchmarks": {"tests"},
    "flows": {"benchmarks", "tests"},
    "personsearch_core": {"flows", "data_catalog", "storage", "prefect"},
    "data_catalog": {"flows", "personsearch_core", "storage", "prefect", "torch", "torchvision"},
    "storage": {"flows", "personsearch_core", "data_catalog", "prefect", "torch", "torchvision"},
}


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((PROJECT / room).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(PROJECT)}:{line} imports {name}"
        for path in files
        for line, name in imported_names(path)
        if name.partition(".")[0] in FORBIDDEN[room]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "module",
    [
        "flows.cli.main",
        "flows.cli.run",
        "flows.run.planning",
        "flows.run.running",
        "flows.stages.building",
        "personsearch_core.recipes",
        "data_catalog.ingest",
        "storage.feature_store",
    ],
)
def test_a_plan_needs_neither_torch_nor_prefect(module: str) -> None:
    script = f"import sys, {module}; print([m for m in ('torch', 'prefect') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_core_names_no_dataset() -> None:
    names = ("cuhk_sysu", "mot17", "wider", "crowdhuman", "market1501")
    branches = []
    for path in sorted((PROJECT / "personsearch_core").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                strings = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                if any(isinstance(text, str) and text.lower() in names for text in strings):
                    branches.append(f"{path.relative_to(PROJECT)}:{node.lineno}")
    assert not branches, f"the core branches on a dataset's name at {branches}"
