"""Imports run one way: benchmarks -> flows -> personsearch_core, data_catalog, storage; none of these three
knows another. Within a package they run in no circle, either, neither between files nor between folders.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
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


def modules() -> dict[str, Path]:
    """Every file of the packages and the benchmarks by the name that it is imported by."""
    files = (path for room in (*ROOMS, "benchmarks") for path in (PROJECT / room).rglob("*.py"))
    names = {path: ".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in files}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def loaded_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports when it is loaded: not within functions, nor for type checkers."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found & known.keys()


def test_files_import_each_other_in_no_circle() -> None:
    known = modules()
    graph = {name: loaded_modules(path, known) for name, path in known.items()}
    assert sum(map(len, graph.values())) > 1000
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_folders_import_each_other_in_no_circle() -> None:
    """`flows/plan` and `flows/stages` count as one: a plan knows stages, and stages know its views."""
    known, graph = modules(), defaultdict(set)

    def folder(module: str) -> str:
        place = module.rpartition(".")[0] if module.count(".") > 1 else module
        return place.replace("flows.stages", "flows.plan")

    for name, path in known.items():
        graph[folder(name)] |= {folder(each) for each in loaded_modules(path, known)} - {folder(name)}
    assert {"flows.plan", "flows.run", "personsearch_core.training"} <= graph.keys()
    TopologicalSorter(graph).prepare()  # raises CycleError


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
