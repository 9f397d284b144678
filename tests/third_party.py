"""Packages that the project does not know, as a user would install them: an adapter, and an objective."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

from PIL import Image

from data_catalog.skeleton import write_skeleton

_PROJECT = Path(__file__).resolve().parents[1]
OBJECTIVE = _PROJECT / "docs/examples/additive_margin"


def install_adapter(folder: Path) -> dict[str, str]:
    """Write the skeleton of `street-cams` as if `pip install --target` had put it into `folder`, and return
    the environment of a process that finds it.
    """
    write_skeleton(folder, "street-cams")
    _describe(
        folder, "personsearch-street-cams", "[personsearch.datasets]\nstreet-cams = street_cams:StreetCams\n"
    )
    return _environment(folder)


def install_objective(folder: Path) -> dict[str, str]:
    """Likewise, docs/examples/additive_margin."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(OBJECTIVE / "additive_margin.py", folder)
    project = tomllib.loads((OBJECTIVE / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["personsearch.objectives"]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    _describe(folder, project["name"], f"[personsearch.objectives]\n{lines}")
    return _environment(folder)


def _describe(folder: Path, name: str, entry_points: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def _environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder), str(_PROJECT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def write_dataset(root: Path) -> None:
    """Two images with a person each, one of them known."""
    (root / "images").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (64, 48)).save(root / "images" / f"{name}.jpg")
    (root / "boxes.csv").write_text("a.jpg,1,2,11,32,anna\nb.jpg,20,2,30,32,\n")
