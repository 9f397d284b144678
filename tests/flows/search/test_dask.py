"""An index that Dask workers build is the one that this process builds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.search import build_index, open_index
from flows.search.building import Where
from flows.search.model import GivenModel
from tests.flows.search.conftest import SETTINGS


@pytest.mark.slow
def test_workers_build_the_same_index(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    (scenes / "bad.jpg").write_text("not an image")
    build_index(tmp_path / "here", [scenes], model, settings=SETTINGS)
    outcome = build_index(
        tmp_path / "there", [scenes], model, settings=SETTINGS, where=Where(device="cpu", workers=1)
    )
    assert (outcome.images, outcome.skipped) == (6, 1)
    here, there = open_index(tmp_path / "here"), open_index(tmp_path / "there")
    assert here.table["image"].to_pylist() == there.table["image"].to_pylist()
    np.testing.assert_allclose(np.concatenate(here.blocks), np.concatenate(there.blocks), atol=1e-2)
