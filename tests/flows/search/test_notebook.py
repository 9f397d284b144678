"""The notebook of the documentation runs from top to bottom, and what it shows draws itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[3] / "docs" / "search.ipynb"

SHOWING = """
import ast, sys
names = {}
for number, cell in enumerate(CELLS):
    body = ast.parse(cell).body
    shown = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
    if shown is not None:
        value = eval(compile(ast.Expression(shown.value), f"cell {number}", "eval"), names)
        if value is not None:
            drawn = value._repr_html_() if hasattr(value, "_repr_html_") else value._repr_png_()
            print("SHOWN", type(value).__name__, len(drawn))
"""


def test_the_notebook_runs(built: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    done = subprocess.run(
        [sys.executable, "-c", f"CELLS = {code!r}\n{SHOWING}"],
        capture_output=True,
        text=True,
        cwd=NOTEBOOK.parents[1],
        env={**os.environ, "PERSONSEARCH_INDEX": str(built)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    shown = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("SHOWN")]
    assert shown == ["Index", "FoundPeople", "Results", "Image", "Results", "FoundPeople"]
    assert len([line for line in done.stdout.splitlines() if line[:2] in {f"{n} " for n in range(1, 6)}]) == 5
