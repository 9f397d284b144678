"""What later stages need of a view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from data_catalog.readiness import identity_faults
from data_catalog.views import View


def write(root: Path, annotation: str) -> None:
    """One image and its line of JDE: class, identity, cx, cy, w, h."""
    for folder in ("images", "labels_with_ids"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "images" / "a.jpg")
    (root / "labels_with_ids" / "a.txt").write_text(annotation)


def test_a_dataset_without_identities_is_told_to_be_one(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path / "root", "0 -1 0.5 0.5 0.2 0.2\n")
    (fault,) = identity_faults(View(ingest_into(tmp_path / "root", "jde"), "train"), per_batch=4)
    assert fault.startswith("no box of split 'train' has an identity: ")
    write(tmp_path / "root", "0 7 0.5 0.5 0.2 0.2\n")
    (fault,) = identity_faults(View(ingest_into(tmp_path / "root", "jde"), "train"), per_batch=4)
    assert "has 0 identities with two boxes or more, but a batch takes 4" in fault
