import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import personsearch_core


def modules_with_examples() -> list[str]:
    found = pkgutil.walk_packages(personsearch_core.__path__, "personsearch_core.")
    folder = Path(personsearch_core.__file__).parents[1]
    return [m.name for m in found if ">>>" in source_of(folder, m.name)]


def source_of(folder: Path, module: str) -> str:
    path = folder / module.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


def test_entry_points_without_heavy_inputs_have_an_example() -> None:
    shown = [name for name in personsearch_core.__all__ if ">>>" in (vars_doc(name) or "")]
    assert len(shown) >= 25
    assert {"evaluate", "load_model", "PersonSearchNet", "PKSampler", "read_image"} <= {*shown}


def vars_doc(name: str) -> str | None:
    value = getattr(personsearch_core, name)
    return value.__doc__ if callable(value) else None


def test_type_checkers_see_the_exported_names() -> None:
    stub = ast.parse(Path(personsearch_core.__file__).with_suffix(".pyi").read_text())
    seen = {
        (alias.asname, f"personsearch_core.{source}")
        for line in stub.body
        if isinstance(line, ast.ImportFrom) and (source := str(line.module).partition(".")[2])
        for alias in line.names
    }
    assert seen == {*personsearch_core._MODULE_OF.items()}
    assert Path(personsearch_core.__file__).with_name("py.typed").is_file()


def test_the_package_loads_what_it_exports_when_it_is_used() -> None:
    script = (
        "import sys, personsearch_core as core;"
        "heavy = lambda: [m for m in ('torch', 'pandas', 'scipy', 'numpy') if m in sys.modules];"
        "print(heavy(), 'evaluate' in dir(core));"
        "from personsearch_core import PKSampler, RoiRecipe, clip_boxes, evaluate;"
        "print([m for m in heavy() if m in ('torch', 'pandas')], evaluate.__module__);"
        "print(all(getattr(core, name) is not None for name in core.__all__), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    home = "personsearch_core.evaluation.front"
    assert done.stdout.splitlines() == ["[] True", f"[] {home}", "True True"]
    with pytest.raises(AttributeError, match=r"'personsearch_core' has no attribute 'evalute'"):
        _ = personsearch_core.evalute  # type: ignore[attr-defined]
