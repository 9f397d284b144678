"""Synthetic datasets: the same seed writes the same pixels, and what is drawn is what the annotations say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from data_catalog.adapters import load_adapter
from data_catalog.hash_cache import HashCache
from data_catalog.ingest import DatasetRoot, counts_found, fingerprint
from data_catalog.synthetic import Mot17Spec, PrwSpec, Style, write_mot17, write_prw, write_prw_annotations

SPEC = PrwSpec(train_images=5, test_images=5, width=128, height=96, train_identities=6, test_identities=4)


def _digest(root: Path) -> str:
    return fingerprint(DatasetRoot(root, load_adapter("prw")), HashCache(None)).digest


def test_a_seed_decides_on_every_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        monkeypatch.setattr("time.asctime", lambda name=name: f"another second: {name}")
        write_prw(tmp_path / name, SPEC, seed=seed)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")


def test_a_style_is_another_domain(tmp_path: Path) -> None:
    write_prw(tmp_path / "a", SPEC, seed=1)
    write_prw(tmp_path / "b", SPEC, seed=1, style=Style(hue=(0.5, 0.7), clutter=12, noise=9))
    assert _digest(tmp_path / "a") != _digest(tmp_path / "b")


def test_test_identities_are_new_and_some_people_unlabelled(tmp_path: Path, ingest_into: Any) -> None:
    write_prw(tmp_path / "prw", PrwSpec(train_images=12, test_images=8, width=128, height=96, people=(3, 5)))
    snapshot = ingest_into(tmp_path / "prw", "prw")
    boxes = snapshot.table("boxes")
    of_split = {
        split: set(boxes.filter(pc.equal(boxes["split"], split))["person_id"].drop_null().to_pylist())
        for split in ("train", "test")
    }
    assert of_split["train"] and of_split["test"]
    assert not of_split["train"] & of_split["test"]
    assert boxes["person_id"].null_count > 0
    assert len(snapshot.table("queries")) > 0
    assert len(snapshot.table("images")["camera_id"].unique()) == 3


def test_copies_of_a_sequence_are_read_once(tmp_path: Path, ingest_into: Any) -> None:
    spec = Mot17Spec(
        sequences=1, frames=2, width=96, height=72, detectors=("DPM", "FRCNN", "SDP"), test_sequences=1
    )
    write_mot17(tmp_path / "a", spec)
    counts = counts_found(ingest_into(tmp_path / "a", "mot17"))
    assert (counts["train.images"], counts["test.images"], counts["test.boxes"]) == (2, 2, 0)
    sdp = ingest_into(tmp_path / "a", "mot17", detector="SDP")
    assert all("-SDP/" in path for path in sdp.table("images")["rel_path"].to_pylist())


def test_a_hundredth_of_prw(tmp_path: Path, ingest_into: Any) -> None:
    write_prw_annotations(tmp_path / "prw", scale=0.01)
    counts = counts_found(ingest_into(tmp_path / "prw", "prw", images=False))
    assert (counts["train.images"], counts["test.images"]) == (57, 61)
    assert (counts["train.boxes"], counts["test.boxes"]) == (180, 251)
