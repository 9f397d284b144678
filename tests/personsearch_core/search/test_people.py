from __future__ import annotations

from pathlib import Path

import pytest
import torch

from personsearch_core import (
    BranchModel,
    RoiRecipe,
    build_branch,
    build_detector,
    load_model,
    read_image,
    save_model,
)
from tests.personsearch_core.scene_files import TINY, write_scenes


@pytest.mark.parametrize("variant", ["j3", "disj"])
def test_a_loaded_model_gives_the_people_of_a_picture(tmp_path: Path, variant: str) -> None:
    torch.manual_seed(0)
    branch = build_branch(variant, TINY, BranchModel(embedding_dim=8, initial_weights="random"))  # type: ignore[arg-type]
    roi = RoiRecipe(variant=variant, roi_height=16, roi_width=8)  # type: ignore[arg-type]
    save_model(tmp_path / "model", build_detector(TINY), branch, roi)
    net = load_model(tmp_path / "model")
    (scene,) = write_scenes(tmp_path, 1)
    people = net.people(scene.path, score_threshold=0.0, max_per_image=3)
    (found,) = net.search([read_image(scene.path)], score_threshold=0.0, max_per_image=3)
    assert [person.number for person in people] == [1, 2, 3]
    assert [list(person.box) for person in people] == found.boxes.tolist()
    torch.testing.assert_close(torch.stack([person.embedding for person in people]), found.embeddings)
    assert people.draw().size == (120, 80)
    assert "3 people" in people._repr_html_() and "data:image/jpeg" in people._repr_html_()
    assert net.people(scene.path, score_threshold=1.0) == ()
