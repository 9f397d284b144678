"""A package of an adapter that the project does not know, as a user would install it, and its dataset."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from data_catalog.skeleton import write_skeleton

_PROJECT = Path(__file__).resolve().parents[1]


def install_adapter(folder: Path) -> dict[str, str]:
    """Write the skeleton of `street-cams` as if `pip install --target` had put it into `folder`, and return
    the environment of a process that finds it.
    """
    write_skeleton(folder, "street-cams")
    info = folder / "personsearch_street_cams-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: personsearch-street-cams\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[personsearch.datasets]\nstreet-cams = street_cams:StreetCams\n")
    path = os.pathsep.join([str(folder), str(_PROJECT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def write_dataset(root: Path) -> None:
    """Two images with a person each, one of them known."""
    (root / "images").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (64, 48)).save(root / "images" / f"{name}.jpg")
    (root / "boxes.csv").write_text("a.jpg,1,2,11,32,anna\nb.jpg,20,2,30,32,\n")
