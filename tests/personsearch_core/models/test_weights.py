from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors import safe_open
from torchvision.models import ResNet50_Weights, WeightsEnum, resnet18
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights, retinanet_resnet50_fpn

from personsearch_core.errors import PersonSearchError
from personsearch_core.models.branch import build_branch
from personsearch_core.models.detector import build_detector
from personsearch_core.models.states import load_weights, save_weights, torchvision_weights
from personsearch_core.models.weights import (
    load_branch,
    load_detector,
    load_initial_weights,
    save_branch,
    save_detector,
)
from personsearch_core.recipes import BranchModel, DetectorModel
from tests.personsearch_core.scene_files import TINY


def test_cocos_head_is_cut_to_the_person_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    coco = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=91, min_size=128, max_size=128, score_thresh=0.0
    ).eval()
    coco.head.classification_head.cls_logits.weight.data.mul_(30)
    torch.save(coco.state_dict(), tmp_path / "coco.pth")
    detector = build_detector(DetectorModel(norm="batch", initial_weights=str(tmp_path / "coco.pth"))).eval()
    load_initial_weights(detector, str(tmp_path / "coco.pth"))
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        logits, deltas, _ = detector(images)
        features = list(coco.backbone(detector.normalise(images)).values())
        expected = coco.head(features)
    torch.testing.assert_close(logits, expected["cls_logits"][..., 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(deltas, expected["bbox_regression"], rtol=1e-5, atol=1e-5)


def test_a_resnets_weights_fill_the_backbone(tmp_path: Path) -> None:
    network = resnet18()
    save_weights(tmp_path / "r18.safetensors", network.state_dict())
    detector = build_detector(TINY)
    load_initial_weights(detector, str(tmp_path / "r18.safetensors"))
    torch.testing.assert_close(detector.backbone.body.layer4[1].conv2.weight, network.layer4[1].conv2.weight)


def test_frozen_norms_take_batch_norms_statistics(tmp_path: Path) -> None:
    save_weights(tmp_path / "r18.safetensors", resnet18().state_dict())
    model = TINY.model_copy(update={"norm": "frozen_batch", "initial_weights": "file"})
    load_initial_weights(build_detector(model), str(tmp_path / "r18.safetensors"))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "r18.safetensors", resnet18().state_dict())
    grouped = build_detector(TINY.model_copy(update={"norm": "group"}))
    with pytest.raises(PersonSearchError, match="do not fit this model"):
        load_initial_weights(grouped, str(tmp_path / "r18.safetensors"))


def test_a_backbone_without_heads_is_named(tmp_path: Path) -> None:
    backbone = {f"backbone.body.{name}": tensor for name, tensor in resnet18().state_dict().items()}
    save_weights(tmp_path / "resnet.safetensors", backbone)
    with pytest.raises(
        PersonSearchError, match=r"resnet\.safetensors have.*but no head\.classification_head"
    ):
        load_initial_weights(build_detector(TINY), str(tmp_path / "resnet.safetensors"))


@pytest.mark.parametrize("name", ["nothing.pth", "text.pth", "text.safetensors"])
def test_bad_files_are_named(tmp_path: Path, name: str) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("hello")
    with pytest.raises(PersonSearchError, match=name):
        load_weights(tmp_path / name)


def test_a_file_that_needs_unpickling_is_refused(tmp_path: Path) -> None:
    torch.save({"model": build_detector}, tmp_path / "code.pth")
    with pytest.raises(PersonSearchError, match=r"code\.pth cannot be read"):
        load_weights(tmp_path / "code.pth")


def test_a_saved_detector_is_the_same(tmp_path: Path) -> None:
    detector = build_detector(TINY).eval()
    save_detector(tmp_path, detector)
    again = load_detector(tmp_path)
    assert again.model == TINY
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(again(images)[0], detector(images)[0], rtol=0, atol=0)


def test_a_saved_branch_is_the_same(tmp_path: Path) -> None:
    branch = build_branch(
        "j3", TINY, BranchModel(embedding_dim=8, initial_weights="random", pooling="gem")
    ).eval()
    save_branch(tmp_path / "b.safetensors", branch)
    again = load_branch(tmp_path / "b.safetensors")
    maps = torch.rand(2, 128, 8, 4)
    with torch.no_grad():
        torch.testing.assert_close(again.embed(maps), branch.embed(maps), rtol=0, atol=0)


def test_a_branch_on_maps_of_another_network_is_pooling_and_an_embedding(tmp_path: Path) -> None:
    recipe = BranchModel(embedding_dim=8, initial_weights="random")
    branch = build_branch("j3", TINY, recipe, channels=5).eval()
    save_branch(tmp_path / "b.safetensors", branch)
    again, maps = load_branch(tmp_path / "b.safetensors"), torch.rand(2, 5, 3, 2)
    with torch.no_grad():
        pooled = torch.nn.functional.normalize(branch.embedding(maps.mean(dim=(2, 3))), dim=1)
        torch.testing.assert_close(again.embed(maps), pooled)


def test_a_branch_from_before_the_field_keeps_its_epsilon(tmp_path: Path) -> None:
    """It was trained with 1e-5 whatever its backbone had; a new one takes the backbone's 0 over."""
    model = TINY.model_copy(update={"norm": "frozen_batch", "initial_weights": "coco"})
    branch = build_branch("j4", model, BranchModel(), build_detector(model).state_dict())
    save_branch(tmp_path / "new.safetensors", branch)
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        description = json.loads(file.metadata()["branch"])
    assert description.pop("norm_epsilon") == load_branch(tmp_path / "new.safetensors").norm_epsilon == 0
    save_weights(tmp_path / "old.safetensors", branch.state_dict(), {"branch": json.dumps(description)})
    assert load_branch(tmp_path / "old.safetensors").norm_epsilon == 1e-5


def test_weights_that_are_no_branch_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "b.safetensors", resnet18().state_dict())
    with pytest.raises(PersonSearchError, match="does not say which branch"):
        load_branch(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("weights", "epsilon"),
    [(RetinaNet_ResNet50_FPN_Weights.COCO_V1, True), (ResNet50_Weights.IMAGENET1K_V1, False)],
)
def test_weights_that_cannot_be_downloaded_say_how_to_give_them(
    monkeypatch: pytest.MonkeyPatch, weights: WeightsEnum, epsilon: bool
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    with pytest.raises(PersonSearchError, match=f"download {weights.url} .* initial_weights") as told:
        torchvision_weights(weights)
    assert ("norm_epsilon: 0" in str(told.value)) is epsilon
