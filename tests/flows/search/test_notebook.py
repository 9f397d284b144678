"""The notebook of the documentation runs from top to bottom, and what it shows draws itself."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tests.forking import Program

NOTEBOOK = Path(__file__).resolve().parents[3] / "docs" / "search.ipynb"


def show(cells: list[str]) -> None:
    """Run the cells, and print what each would show."""
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        body = ast.parse(cell).body
        shown = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
        if isinstance(shown, ast.Expr):
            value = eval(compile(ast.Expression(shown.value), f"cell {number}", "eval"), names)
            if value is not None:
                drawn = value._repr_html_() if hasattr(value, "_repr_html_") else value._repr_png_()
                print("SHOWN", type(value).__name__, len(drawn))


def test_the_notebook_runs(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    monkeypatch.setenv("PERSONSEARCH_INDEX", str(built))
    output, error = tmp_path / "output", tmp_path / "error"
    assert Program(show, code, output=output, error=error).wait(300) == 0, error.read_text()
    lines = output.read_text().splitlines()
    shown = [line.split()[1] for line in lines if line.startswith("SHOWN")]
    assert shown == ["Index", "FoundPeople", "Results", "Image", "Results", "FoundPeople"]
    assert len([line for line in lines if line[:2] in {f"{n} " for n in range(1, 6)}]) == 5
