"""A tiny model with random weights, and scenes for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.search import build_index
from flows.search.layout import Settings
from flows.search.model import GivenModel, given_model
from personsearch_core import BranchModel, RoiRecipe, build_branch, build_detector, save_model
from tests.personsearch_core.scene_files import TINY, write_scenes

SETTINGS = Settings(score_threshold=0.0, max_per_image=4)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    torch.manual_seed(0)
    detector = build_detector(TINY).eval()
    branch = build_branch("j3", TINY, BranchModel(embedding_dim=16, initial_weights="random")).eval()
    save_model(folder, detector, branch, RoiRecipe(variant="j3", roi_height=8, roi_width=4))
    return folder


@pytest.fixture(scope="session")
def model(model_folder: Path) -> GivenModel:
    return given_model(model_folder).loaded_once()


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Six pictures in two folders: copy nothing, change what you like."""
    folder = tmp_path / "scenes"
    write_scenes(folder / "entrance", 3, source="a", seed=1)
    write_scenes(folder / "hall", 3, source="b", seed=2)
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, model: GivenModel) -> Path:
    """An index of twelve pictures by two cameras with times in their names; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    for camera, seed in (("entrance", 1), ("hall", 2)):
        for number, scene in enumerate(write_scenes(folder / "scenes" / camera, 6, seed=seed)):
            path = Path(scene.path)
            path.rename(path.with_name(f"20240501_12{number:02d}00.png"))
    build_index(folder / "index", [folder / "scenes"], model, settings=SETTINGS)
    return folder / "index"
