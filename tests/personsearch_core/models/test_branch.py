from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from personsearch_core.errors import PersonSearchError
from personsearch_core.models.backbone import FrozenBatchNorm
from personsearch_core.models.branch import Branch, build_branch
from personsearch_core.models.compute import arrange
from personsearch_core.models.detector import build_detector
from personsearch_core.pooling.rois import pool_shared_map
from personsearch_core.recipes import BranchModel, Compute, DetectorModel, RoiRecipe
from personsearch_core.search.network import PersonSearchNet
from tests.personsearch_core.scene_files import TINY


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("variant", ["j2", "j3", "j4"])
def test_with_the_detectors_weights_a_branch_continues_the_backbone(backbone: str, variant: str) -> None:
    """For a ROI equal to the whole map at its own size, its features are those of the full backbone."""
    torch.manual_seed(0)
    model = DetectorModel(backbone=backbone, norm="batch", initial_weights=None)  # type: ignore[arg-type]
    detector = build_detector(model).eval()
    branch = build_branch(variant, model, BranchModel(), detector.state_dict()).eval()  # type: ignore[arg-type]
    images = torch.rand(2, 3, 128, 64)
    with torch.no_grad():
        shared = detector.shared_maps(images, variant)
        height, width = shared.shape[-2:]
        roi = RoiRecipe(variant=variant, roi_height=height, roi_width=width, sampling_ratio=1)  # type: ignore[arg-type]
        whole = np.array([[0, 0, width, height]], np.float32)
        features = branch.features(arrange(pool_shared_map(shared, [whole, whole], roi), Compute()))
        torch.testing.assert_close(features, detector(images)[2][-1], rtol=1e-5, atol=1e-5)


def test_disj_takes_crops_through_the_whole_network() -> None:
    detector = build_detector(TINY).eval()
    branch = build_branch("disj", TINY, BranchModel(embedding_dim=16), detector.state_dict()).eval()
    crops = torch.randint(0, 256, (3, 3, 256, 128), dtype=torch.uint8)
    with torch.no_grad():
        assert branch(crops).shape == (3, 16)
        torch.testing.assert_close(branch.features(crops), detector(crops)[2][-1])


@pytest.mark.parametrize("pooling", ["average", "max", "gem"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_descriptions_are_normalised_and_embeddings_are_not(pooling: str, dtype: torch.dtype) -> None:
    recipe = BranchModel(embedding_dim=16, initial_weights="random", pooling=pooling)  # type: ignore[arg-type]
    branch = build_branch("j3", TINY, recipe).eval()
    maps = torch.rand(3, 128, 16, 8).to(dtype)
    with torch.no_grad():
        assert branch.embed(maps).norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-4)
        assert branch(maps).norm(dim=1).sub(1).abs().min() > 1e-3


def test_last_stride_1_keeps_the_resolution() -> None:
    maps = torch.rand(1, 128, 16, 8)
    sizes = [
        build_branch("j3", TINY, BranchModel(initial_weights="random", last_stride=stride))
        .features(maps)
        .shape[-2:]
        for stride in (2, 1)
    ]
    assert sizes == [(4, 2), (8, 4)]


def test_the_seed_decides_and_torchs_generator_is_left_alone() -> None:
    recipe = BranchModel(initial_weights="random")
    state = torch.random.get_rng_state()
    first, again, other = (build_branch("j4", TINY, recipe, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.embedding.weight, again.embedding.weight)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_detector_weights_without_a_detector_are_refused() -> None:
    with pytest.raises(PersonSearchError, match="needs a detector"):
        build_branch("j3", TINY, BranchModel())


def test_a_group_norm_cannot_start_from_batch_statistics() -> None:
    state = build_detector(TINY).state_dict()
    with pytest.raises(PersonSearchError, match="do not fit"):
        build_branch("j3", TINY, BranchModel(norm="group"), state)


@pytest.mark.parametrize("variant", ["j2", "j3", "j4", "disj"])
def test_search_runs_the_backbone_once_and_embeds_everyone(variant: str) -> None:
    torch.manual_seed(0)
    detector = build_detector(TINY)
    branch = build_branch(variant, TINY, BranchModel(embedding_dim=8), detector.state_dict())  # type: ignore[arg-type]
    net = PersonSearchNet(detector, branch, RoiRecipe(variant=variant))  # type: ignore[arg-type]
    passes = []
    detector.backbone.body.conv1.register_forward_hook(lambda *_: passes.append(1))
    images = [
        torch.randint(0, 256, (3, 80, 120), dtype=torch.uint8),
        torch.zeros(3, 50, 60, dtype=torch.uint8),
    ]
    people = net.search(images, score_threshold=0.0, max_per_image=5)
    assert len(passes) == 1
    for found, image in zip(people, images, strict=True):
        assert found.embeddings.shape == (len(found.boxes), 8) and len(found.scores) == len(found.boxes) == 5
        assert (found.boxes[:, 2] <= image.shape[-1]).all() and (found.boxes[:, 3] <= image.shape[-2]).all()
    given = net.search(images, [people[0].boxes[:2], np.empty((0, 4), np.float32)])
    torch.testing.assert_close(given[0].embeddings, people[0].embeddings[:2], rtol=1e-4, atol=1e-4)
    assert given[1].embeddings.shape == (0, 8)


@pytest.mark.parametrize("variant", ["j3", "disj"])
def test_a_scene_without_people_gives_no_people(variant: str) -> None:
    detector = build_detector(TINY)
    branch = build_branch(variant, TINY, BranchModel(embedding_dim=8), detector.state_dict())  # type: ignore[arg-type]
    net = PersonSearchNet(detector, branch, RoiRecipe(variant=variant))  # type: ignore[arg-type]
    (people,) = net.search([torch.zeros(3, 40, 40, dtype=torch.uint8)], score_threshold=1.0)
    assert people.boxes.shape == (0, 4) and people.embeddings.shape == (0, 8)


def test_what_fills_a_compiled_batch_up_is_found_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three scenes are a batch of four, so that few sizes are compiled."""
    monkeypatch.setattr(torch, "compile", lambda method, **_: method)
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: None)
    torch.manual_seed(0)
    detector = build_detector(TINY)
    branch = build_branch("j3", TINY, BranchModel(embedding_dim=8), detector.state_dict())
    images = [torch.randint(0, 256, (3, 80, 120), dtype=torch.uint8) for _ in range(3)]
    sizes = []
    detector.backbone.body.conv1.register_forward_hook(lambda *call: sizes.append(len(call[1][0])))
    expected, found = (
        PersonSearchNet(detector, branch, RoiRecipe(variant="j3"), each).search(
            images, score_threshold=0.0, max_per_image=5
        )
        for each in (Compute(), Compute(compile=True))
    )
    assert sizes == [3, 4]
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-3)
        torch.testing.assert_close(other.embeddings, one.embeddings, rtol=1e-4, atol=1e-4)


def test_no_scenes_give_no_results() -> None:
    detector = build_detector(TINY)
    net = PersonSearchNet(
        detector, build_branch("j3", TINY, BranchModel(), detector.state_dict()), RoiRecipe()
    )
    assert net.search([]) == [] and net.search([], []) == []


@pytest.mark.parametrize(
    ("weights", "detector_norm", "epsilon"),
    [("imagenet", "frozen_batch", 1e-5), ("detector", "frozen_batch", 0.0), ("detector", "batch", 1e-5)],
)
@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
@pytest.mark.parametrize("variant", ["j3", "disj"])
def test_norms_have_the_epsilon_of_their_weights(
    variant: str, norm: str, weights: str, detector_norm: str, epsilon: float
) -> None:
    model = DetectorModel(backbone="resnet18", norm=detector_norm, initial_weights="coco")  # type: ignore[arg-type]
    branch = Branch(variant, model, BranchModel(norm=norm, initial_weights=weights))  # type: ignore[arg-type]
    found = {part.eps for part in branch.modules() if isinstance(part, FrozenBatchNorm | nn.BatchNorm2d)}
    assert found == {epsilon}


@pytest.mark.parametrize("norm", ["batch", "frozen_batch"])
def test_a_branch_continues_cocos_backbone(norm: str) -> None:
    """COCO's epsilon is 0 and its dead channels have tiny variances: another epsilon gives other features."""
    torch.manual_seed(0)
    model = DetectorModel(backbone="resnet18", initial_weights="coco")
    detector = build_detector(model).eval()
    for name, buffer in detector.backbone.body.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(torch.logspace(-6, 0, len(buffer)))
    shared = torch.rand(2, 128, 16, 8)
    with torch.no_grad():
        expected = detector.backbone.body.layer4(detector.backbone.body.layer3(shared))
        scale = expected.abs().max()
        errors = [
            build_branch("j3", model, BranchModel(norm=norm, norm_epsilon=epsilon), detector.state_dict())  # type: ignore[arg-type]
            .eval()
            .features(shared)
            .sub(expected)
            .abs()
            .max()
            .item()
            / scale
            for epsilon in (None, 1e-5)
        ]
    assert errors[0] < 1e-6 < 1e-3 < errors[1]
