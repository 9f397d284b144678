"""A package with a working adapter, a sample and a test of it, as a start for your own dataset."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from PIL import Image

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

from data_catalog import INVALID, Layout, NameLookup, Rows, Unit
from data_catalog import identity, image_files, need_files, number, read_text


class $cls:
    name = "$name"
    version = 1  # raise it when the same files give other rows
    options = {}

    def discover(self, root, options):
        need_files(root, ["boxes.csv"], "$name dataset")
        return Layout((Unit("boxes.csv", "train", image_files(root, "images")),))

    def read(self, root, unit, options):
        rows, files, taken = Rows(unit.source), NameLookup(unit.images), []
        rows.images(unit.images, unit.images, unit.split)
        for at, line in enumerate(read_text(root / unit.source).splitlines(), start=1):
            if at == 1 and line.startswith("image,"):
                continue  # the header
            try:
                image, x1, y1, x2, y2, person = line.split(",")
                path = files.find(f"images/{image}")
                if path is None:
                    raise ValueError("image not found")
                taken.append((path, [number(value) for value in (x1, y1, x2, y2)], at, identity(person)))
            except ValueError as error:
                rows.reject(INVALID, "row_unreadable", f"{error}: {line[:80]!r}", at)
        images, boxes, numbers, people = zip(*taken) if taken else ([], [], [], [])
        rows.boxes(images, boxes, unit.split, numbers, person_id=people)
        yield rows
''')

_TEST = Template("""\
from pathlib import Path

from data_catalog import ingest_root
from $package import $cls

SAMPLE = Path(__file__).parent / "sample"
EXPECTED = {"images": 1, "boxes": 3, "ids": 2, "rejects": 2}


def test_every_row_of_the_sample_is_a_box_or_a_reject(tmp_path):
    counts = ingest_root(SAMPLE, $cls(), tmp_path)
    assert {name: counts[name] for name in EXPECTED} == EXPECTED
""")

_SAMPLE = """\
image,x1,y1,x2,y2,person
a.jpg,1,2,11,32,anna
a.jpg,20,2,30,32,
a.jpg,40,2,50,32,ben
a.jpg,1
b.jpg,1,2,3,4,
"""


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
        raise CatalogError(f"{name!r} is already the name of a module ({found.origin}): choose another name")
    cls = "".join(part.capitalize() for part in name.split("-"))
    templates = {"pyproject.toml": _PROJECT, f"{package}.py": _ADAPTER, f"test_{package}.py": _TEST}
    texts = {
        file: template.substitute(name=name, package=package, cls=cls) for file, template in templates.items()
    } | {"sample/boxes.csv": _SAMPLE}
    image = folder / "sample" / "images" / "a.jpg"
    written = [*(folder / file for file in texts), image]
    for path in written:
        if path.exists():
            raise CatalogError(f"{path} already exists; choose another folder (--folder)")
    image.parent.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text)
    Image.new("RGB", (64, 48), (90, 120, 150)).save(image)
    return written
