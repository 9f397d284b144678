"""A package with a working adapter and its test, as a start for a dataset of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from data_catalog.errors import CatalogError

_PROJECT = Template("""\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "personsearch-$package"
version = "0.1.0"

[tool.setuptools]
py-modules = ["$package"]

[project.entry-points."personsearch.datasets"]
$name = "$package:$cls"
""")

_ADAPTER = Template('''\
"""$name: images/*.jpg and boxes.csv with lines `image,x1,y1,x2,y2,person` (person may be empty)."""

import csv

import numpy as np

from data_catalog.adapters import Layout, Unit
from data_catalog.paths import image_files, need_files
from data_catalog.rows import Rows


class $cls:
    name = "$name"
    version = 1  # raise it when the same files give other rows
    options = {}

    def discover(self, root, options):
        need_files(root, ["boxes.csv"], "$name dataset")
        return Layout((Unit("boxes.csv", "train", image_files(root, "images")),))

    def read(self, root, unit, options):
        rows = Rows(unit.source)
        names = [path.removeprefix("images/") for path in unit.images]
        rows.images(names, list(unit.images), unit.split)
        with (root / unit.source).open(newline="") as file:
            lines = list(csv.reader(file))
        rows.boxes(
            [line[0] for line in lines],
            np.array([[float(value) for value in line[1:5]] for line in lines]),
            unit.split,
            list(range(1, len(lines) + 1)),
            person_id=[line[5] or None for line in lines],
        )
        yield rows
''')

_TEST = Template("""\
from PIL import Image

from data_catalog.ingest import ingest_root
from $package import $cls


def test_every_box_is_read(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.jpg")
    (tmp_path / "boxes.csv").write_text("a.jpg,1,2,11,32,anna\\na.jpg,20,2,30,32,\\n")
    counts = ingest_root(tmp_path, $cls(), tmp_path / "snapshot")
    assert (counts["images"], counts["boxes"], counts["ids"], counts["rejects"]) == (1, 2, 1, 0)
""")


def write_skeleton(folder: Path, name: str) -> list[Path]:
    """Write the package for an adapter of that name into `folder` and return its files.

    Raises:
        CatalogError: when the name cannot be an adapter's, or a file is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", name):
        raise CatalogError(f"{name!r} cannot name an adapter: use lower-case letters, digits and '-'")
    package = name.replace("-", "_")
    cls = "".join(part.capitalize() for part in name.split("-"))
    texts = {"pyproject.toml": _PROJECT, f"{package}.py": _ADAPTER, f"test_{package}.py": _TEST}
    for file in texts:
        if (folder / file).exists():
            raise CatalogError(f"{folder / file} is there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text.substitute(name=name, package=package, cls=cls))
    return [folder / file for file in texts]
