"""Names of files in exports: accents in either form, and bytes that are not UTF-8."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_catalog.snapshot import ingest_findings
from tests.data_catalog.adapters.test_cvat import BOX, document, image
from tests.data_catalog.adapters.test_voc import PERSON, xml

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def _jde(root: Path, name: str) -> None:
    (root / "labels_with_ids").mkdir()
    (root / "labels_with_ids" / f"{name}.txt").write_text("0 1 0.5 0.5 0.5 0.5\n")
    (root / "x.train").write_text(f"./images/{name}.png\n")


def _voc(root: Path, name: str) -> None:
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "Annotations" / f"{name}.xml").write_text(xml(PERSON))
    (root / "ImageSets" / "Main" / "train.txt").write_text(f"{unicodedata.normalize('NFD', name)}\n")
    (root / "ImageSets" / "Main" / "person_train.txt").write_text(f"{name} 1\n")


def _cvat(root: Path, name: str) -> None:
    (root / "annotations.xml").write_text(document(image(f".\\{name}.png", BOX.format(1, ""))))


WRITERS = {"jde": _jde, "voc": _voc, "cvat": _cvat}


@pytest.mark.parametrize("adapter", WRITERS)
@pytest.mark.parametrize(("on_disk", "named"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_accents_in_either_form(
    tmp_path: Path, ingest_into: Any, adapter: str, on_disk: str, named: str
) -> None:
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(root / "images" / f"{on_disk}.png")
    WRITERS[adapter](root, named)
    snapshot = ingest_into(root, adapter)
    assert snapshot.table("images")["rel_path"].to_pylist() == [f"images/{on_disk}.png"]
    assert len(snapshot.table("boxes")) == 1
    assert len(snapshot.table("rejects")) == 0


@pytest.mark.parametrize("adapter", WRITERS)
def test_a_name_that_is_not_utf8_is_left_over(tmp_path: Path, ingest_into: Any, adapter: str) -> None:
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(root / "images" / "a.png")
    WRITERS[adapter](root, "a")
    for folder in [path for path in root.rglob("*") if path.is_dir()]:
        for suffix in (b".png", b".xml", b".txt"):
            Path(os.fsdecode(os.fsencode(folder) + b"/\xff" + suffix)).write_bytes(b"x")
    snapshot = ingest_into(root, adapter)
    assert snapshot.table("images")["rel_path"].to_pylist() == ["images/a.png"]
    assert len(snapshot.table("rejects")) == 0
    assert any(r"/\udcff." in finding.message for finding in ingest_findings(snapshot))
