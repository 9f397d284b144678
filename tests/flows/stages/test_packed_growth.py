"""Features that are stored by a codec, and grow: rows are taken only where their bytes would be the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.growing import GrowingScenes, Timed, make_stages, write_config
from flows.stages import packing
from personsearch_core.models.detector import Detector, build_detector
from storage.feature_store import open_features
from storage.feature_store.decoding import read_codec
from storage.feature_store.metadata import read_layout
from tests.flows.stages.test_growth import SETTINGS, here, rows_of
from tests.personsearch_core.scene_files import TINY

IMAGES, MORE, PEOPLE = 20, 22, 4
INT8 = {"values": "int8"}
PCA = {"values": "int8", "channels": 8}


class Growing:
    """A dataset that is small or has grown, and the features that a codec makes of it."""

    def __init__(self, folder: Path, detector: Detector) -> None:
        self.folder, self.detector = folder, detector
        self.scenes = GrowingScenes(folder / "data", 120, 80, people=PEOPLE)

    def make(self, store: str, codec: dict[str, Any], *, grown: bool) -> Timed:
        self.scenes.write({"train": range(MORE if grown else IMAGES), "test": range(30, 36)})
        settings = SETTINGS | {"features": {"batch_images": 4, "codec": codec}}
        config = write_config(self.folder / "packed.yaml", self.scenes.root, TINY, **settings)
        return make_stages(config, self.folder / store, self.detector, ("features",), here)["features"]


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    torch.manual_seed(0)
    yield Growing(tmp_path, build_detector(TINY).eval())


def rows_read(made: Timed) -> np.ndarray:
    with open_features(made.artifact.path) as reader:
        return reader.rows(np.arange(len(reader)))


def test_int8_rows_are_taken_and_near_the_computed_ones(growing: Growing) -> None:
    growing.make("grown", INT8, grown=False)
    grown, alone = growing.make("grown", INT8, grown=True), growing.make("alone", INT8, grown=True)
    assert rows_of(grown)["taken"] == IMAGES * PEOPLE and rows_of(alone)["taken"] == 0
    assert grown.artifact.content_digest == alone.artifact.content_digest
    exact = growing.make("exact", {}, grown=True)
    rows, wanted = rows_read(grown).astype(np.float32), rows_read(exact).astype(np.float32)
    span = np.ptp(wanted, axis=(2, 3), keepdims=True)
    error = np.abs(rows - wanted)
    assert (error <= span / 500 + 1e-2 * np.abs(wanted) + 1e-6).all() and error.any()
    bytes_per_row = [each.artifact.manifest.metrics["bytes_per_row"] for each in (grown, exact)]
    assert bytes_per_row[0] < 0.62 * bytes_per_row[1]  # a map of 32 positions: the steps of a channel count


def test_rows_are_taken_only_where_the_axes_are_the_same(
    growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.make("grown", PCA, grown=False)
    grown = growing.make("grown", PCA, grown=True)
    assert rows_of(grown)["taken"] == 0, "the sample is every image, so new ones change the axes"

    monkeypatch.setattr(packing, "SAMPLE_ROWS", 8)  # two images, which are not among the new ones
    growing.make("again", PCA, grown=False)
    again, fresh = growing.make("again", PCA, grown=True), growing.make("fresh", PCA, grown=True)
    assert rows_of(again)["taken"] == IMAGES * PEOPLE
    assert again.artifact.content_digest == fresh.artifact.content_digest != grown.artifact.content_digest
    assert rows_read(again).shape == (MORE * PEOPLE, 128, 8, 4)
    codec = read_codec(again.artifact.path, read_layout(again.artifact.path))
    assert codec is not None and codec.channels == 8
    assert "codec.safetensors" in again.artifact.manifest.files


def test_a_stage_that_was_cut_off_keeps_its_axes(growing: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    from personsearch_core.pooling import extraction

    whole = growing.make("whole", PCA, grown=False)
    pooled, calls = extraction.pool_shared_map, []

    def cut_off(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 8:  # the sample takes 5 batches
            raise ConnectionError("cut off")
        return pooled(*given)

    monkeypatch.setattr(extraction, "pool_shared_map", cut_off)
    with pytest.raises(ConnectionError):
        growing.make("cut", PCA, grown=False)
    (axes,) = (growing.folder / "cut").rglob("codec.safetensors")
    assert axes.stat().st_size > 0
    calls.extend([()] * 100)
    before = len(calls)
    resumed = growing.make("cut", PCA, grown=False)
    assert resumed.artifact.content_digest == whole.artifact.content_digest
    assert len(calls) - before == 5, "no sample is computed again"
