"""A package with a working adapter and its test, as a start for a dataset of one's own."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from data_catalog.adapters import adapter_names
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

from data_catalog.adapters import Layout, Unit
from data_catalog.files import image_files, need_files, read_text
from data_catalog.rows import Rows
from data_catalog.schema import INVALID


class $cls:
    name = "$name"
    version = 1  # raise it when the same files give other rows
    options = {}

    def discover(self, root, options):
        need_files(root, ["boxes.csv"], "$name dataset")
        return Layout((Unit("boxes.csv", "train", image_files(root, "images")),))

    def read(self, root, unit, options):
        rows = Rows(unit.source)
        names = {path.removeprefix("images/"): path for path in unit.images}
        rows.images(list(names), list(names.values()), unit.split)
        taken = []
        for number, line in enumerate(read_text(root / unit.source).splitlines(), start=1):
            if number == 1 and line.startswith("image,"):
                continue  # the header
            try:
                image, x1, y1, x2, y2, person = line.split(",")
                if image not in names:
                    raise ValueError("no such image")
                taken.append((image, [float(value) for value in (x1, y1, x2, y2)], number, person or None))
            except ValueError as error:
                rows.reject(INVALID, "row_unreadable", f"{error}: {line[:80]!r}", number)
        images, boxes, numbers, people = zip(*taken) if taken else ([], [], [], [])
        rows.boxes(images, boxes, unit.split, numbers, person_id=people)
        yield rows
''')

_TEST = Template("""\
from PIL import Image

from data_catalog.ingest import ingest_root
from $package import $cls


def test_every_line_is_a_box_or_a_reject(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.jpg")
    header, boxes = ["image,x1,y1,x2,y2,person"], ["a.jpg,1,2,11,32,anna", "a.jpg,20,2,30,32,"]
    damaged = ["a.jpg,1", "b.jpg,1,2,3,4,"]
    (tmp_path / "boxes.csv").write_text("\\n".join(header + boxes + damaged))
    counts = ingest_root(tmp_path, $cls(), tmp_path / "snapshot")
    assert (counts["images"], counts["boxes"], counts["ids"], counts["rejects"]) == (1, 2, 1, 2)
""")


def write_skeleton(folder: Path, name: str) -> list[Path]:
    """Write the package for an adapter of that name into `folder` and return its files.

    Raises:
        CatalogError: when the name cannot be an adapter's, or a file is there already.
    """
    if len(name) > 40 or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise CatalogError(f"{name!r} cannot name an adapter: use lower-case letters, digits and '-'")
    package = name.replace("-", "_")
    if iskeyword(package) or package in sys.stdlib_module_names or name in adapter_names():
        raise CatalogError(f"{name!r} is taken, by Python or by an adapter: choose another name")
    if (found := find_spec(package)) is not None:
        raise CatalogError(f"{name!r} is the name of a module already ({found.origin}): choose another name")
    cls = "".join(part.capitalize() for part in name.split("-"))
    texts = {"pyproject.toml": _PROJECT, f"{package}.py": _ADAPTER, f"test_{package}.py": _TEST}
    for file in texts:
        if (folder / file).exists():
            raise CatalogError(f"{folder / file} is there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text.substitute(name=name, package=package, cls=cls))
    return [folder / file for file in texts]
