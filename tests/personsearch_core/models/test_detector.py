from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn
from torchvision.models.detection._utils import BoxCoder, Matcher, _box_loss
from torchvision.ops import FrozenBatchNorm2d, box_iou

from personsearch_core.boxes import place_image
from personsearch_core.models.anchors import BACKGROUND, UNDECIDED, AnchorGrid, match_anchors
from personsearch_core.models.backbone import norm_layer
from personsearch_core.models.candidates import best_candidates, picture_boxes, suppress
from personsearch_core.models.detection_loss import detection_losses, sigmoid_focal_loss
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.models.targets import PaddedTargets, Targets, pad_targets
from personsearch_core.recipes import Compute, DetectionLoss, DetectorModel
from tests.personsearch_core.scene_files import TINY

SIZE = (192, 256)
FROM_SCRATCH = DetectorModel(norm="batch", initial_weights=None)


@pytest.fixture(scope="module")
def reference() -> RetinaNet:
    """torchvision's own RetinaNet of one class, on inputs that its transform leaves alone."""
    torch.manual_seed(0)
    network = retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=1,
        min_size=SIZE[0],
        max_size=SIZE[1],
        score_thresh=0.0,
    )
    network.head.classification_head.cls_logits.weight.data.mul_(3)
    return network


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def targets(*boxes: list[float], ignored: int = 0) -> Targets:
    """Boxes of one image, of which the last `ignored` are ignore regions."""
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Targets(rows, torch.arange(len(rows)) >= len(rows) - ignored)


def padded(*boxes: list[float], ignored: int = 0) -> PaddedTargets:
    """The same, as a batch."""
    return pad_targets([targets(*boxes, ignored=ignored)])


def ours(reference: RetinaNet, loss: DetectionLoss) -> Detector:
    detector = build_detector(FROM_SCRATCH, loss)
    detector.load_state_dict(reference.state_dict())
    return detector


@pytest.mark.parametrize("regression", ["l1", "smooth_l1"])
def test_losses_equal_torchvisions(reference: RetinaNet, images: Tensor, regression: str) -> None:
    loss = DetectionLoss(regression=regression, smooth_l1_beta=1.0)  # type: ignore[arg-type]
    people = [targets([10, 10, 60, 120], [100, 50, 180, 190], [101, 52, 170, 180]), targets()]
    network = copy.deepcopy(reference).train()
    network.head.regression_head._loss_type = regression
    expected = network(
        list(images),
        [{"boxes": t.boxes, "labels": torch.zeros(len(t.boxes), dtype=torch.int64)} for t in people],
    )
    classification, box, _ = ours(reference, loss).train().losses(images, pad_targets(people))
    torch.testing.assert_close(classification.mean(), expected["classification"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(box.mean(), expected["bbox_regression"], rtol=1e-5, atol=1e-5)


def test_smooth_l1_equals_torchvisions_at_the_default_beta() -> None:
    """torchvision's RetinaNet has no beta of its own; the loss beneath it has."""
    default = DetectionLoss()
    anchors = torch.tensor([[10.0, 10, 60, 120], [100, 50, 180, 190], [0, 0, 30, 60], [105, 55, 178, 188]])
    people = [targets([12, 8, 58, 121], [100, 52, 182, 190]), targets([1, 2, 28, 64])]
    deltas = torch.randn(2, len(anchors), 4, generator=torch.Generator().manual_seed(0)) / 5
    _, found = detection_losses(torch.zeros(2, len(anchors)), deltas, anchors, pad_targets(people), default)
    for image, target in enumerate(people):
        (matched,) = match_anchors(anchors, pad_targets([target]))
        positive = matched >= 0
        boxes, beta = target.boxes[matched[positive]], {"beta": default.smooth_l1_beta}
        coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        total = _box_loss("smooth_l1", coder, anchors[positive], boxes, deltas[image, positive], beta)
        torch.testing.assert_close(found[image], total / positive.sum())


def test_detections_equal_torchvisions(reference: RetinaNet, images: Tensor) -> None:
    network = copy.deepcopy(reference).eval()
    with torch.no_grad():
        expected = network(list(images))
    found = ours(reference, DetectionLoss()).eval().detect(images, score_threshold=0.0, max_per_image=300)
    for own, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(own.scores, theirs["scores"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(own.boxes, theirs["boxes"], rtol=1e-5, atol=1e-4)


def test_bytes_and_fractions_are_the_same_image() -> None:
    detector = build_detector(TINY).eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        logits, deltas, _ = detector(pixels)
        expected, expected_deltas, _ = detector(pixels / 255)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(deltas, expected_deltas, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (100, 170), (240, 320), (33, 65)])
def test_anchors_belong_to_the_outputs_at_any_size(size: tuple[int, int]) -> None:
    logits, deltas, _ = build_detector(TINY).eval()(torch.rand(1, 3, *size))
    grid = AnchorGrid(TINY)
    anchors = grid.anchors(*size, torch.device("cpu"))
    assert logits.shape[1] == deltas.shape[1] == len(anchors) == sum(grid.levels(*size))


def test_the_shared_map_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = build_detector(TINY).eval()
    passes = []
    detector.backbone.body.conv1.register_forward_hook(lambda *_: passes.append(1))
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        _, shared = detector.candidates(images, [place_image(96, 64, 96, 64)], "j3")
        assert len(passes) == 1
        assert shared is not None
        torch.testing.assert_close(shared, detector.shared_maps(images, "j3"))


def test_later_blocks_are_not_computed_for_a_shared_map() -> None:
    detector = build_detector(TINY).eval()
    detector.backbone.body.layer3.register_forward_hook(lambda *_: pytest.fail("layer3 was run"))
    assert detector.shared_maps(torch.rand(1, 3, 64, 96), "j3").shape == (1, 128, 8, 12)


def test_one_step_changes_every_shared_block() -> None:
    torch.manual_seed(0)
    detector = build_detector(TINY).train()
    before = copy.deepcopy(detector.backbone.body.state_dict())
    classification, regression, _ = detector.losses(
        torch.rand(2, 3, 64, 96), pad_targets([targets([10, 10, 30, 60]), targets([40, 5, 60, 60])])
    )
    (classification.sum() + regression.sum()).backward()
    torch.optim.SGD(detector.parameters(), lr=0.1).step()
    for name, parameter in detector.backbone.body.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("layers, frozen", [(5, 0), (4, 2), (3, 3), (0, 6)])
def test_trainable_layers(layers: int, frozen: int) -> None:
    body = build_detector(TINY.model_copy(update={"trainable_layers": layers})).train().backbone.body
    still = [
        name
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
        if not any(p.requires_grad for p in body.get_submodule(name).parameters())
    ]
    assert len(still) == frozen
    assert all(not body.get_submodule(name).training for name in still)


@pytest.mark.parametrize("norm", ["frozen_batch", "batch", "group"])
def test_the_norm_is_the_recipes(norm: str) -> None:
    model = TINY.model_copy(update={"norm": norm, "initial_weights": "imagenet"})
    body = build_detector(model).backbone.body
    kinds = {type(module).__name__ for module in body.modules() if "Norm" in type(module).__name__}
    assert kinds == {{"frozen_batch": "FrozenBatchNorm", "batch": "BatchNorm2d", "group": "GroupNorm"}[norm]}


def test_frozen_norm_from_scratch_is_refused() -> None:
    with pytest.raises(ValueError, match="frozen_batch"):
        DetectorModel(norm="frozen_batch", initial_weights=None)


GRID = torch.tensor(
    [[0, 0, 20, 40], [2, 0, 22, 40], [10, 0, 30, 40], [60, 0, 80, 40], [50, 0, 90, 80]]
).float()


def test_ignore_regions_are_neither_positive_nor_negative() -> None:
    (matched,) = match_anchors(GRID, padded([0, 0, 20, 40], [55, 0, 85, 45], ignored=1))
    assert matched.tolist() == [0, 0, BACKGROUND, UNDECIDED, UNDECIDED]


def test_a_person_in_an_ignore_region_is_a_person() -> None:
    (matched,) = match_anchors(GRID, padded([60, 0, 80, 40], [0, 0, 100, 100], ignored=1))
    assert matched[3] == 0
    assert (matched[:3] == UNDECIDED).all()


def test_only_an_ignore_region() -> None:
    (matched,) = match_anchors(GRID, padded([0, 0, 25, 45], ignored=1))
    assert matched.tolist() == [UNDECIDED, UNDECIDED, UNDECIDED, BACKGROUND, BACKGROUND]


def test_people_are_matched_as_torchvision_matches_them() -> None:
    anchors = AnchorGrid(TINY).anchors(64, 96, torch.device("cpu"))
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    generator = torch.Generator().manual_seed(0)
    batch = []
    for people in (5, 1, 12):
        corners = torch.rand(people, 2, generator=generator) * torch.tensor([70.0, 40.0])
        sides = torch.rand(people, 2, generator=generator) * 40 + 4
        batch.append(targets(*torch.cat([corners, corners + sides], dim=1).tolist()))
    for target, found in zip(batch, match_anchors(anchors, pad_targets(batch)), strict=True):
        assert torch.equal(found, matcher(box_iou(target.boxes, anchors)))


def test_an_ignore_region_takes_its_anchors_out_of_the_loss() -> None:
    torch.manual_seed(0)
    detector = build_detector(TINY).eval()
    images = torch.rand(1, 3, 64, 96)
    person = [10.0, 10.0, 30.0, 50.0]
    with torch.no_grad():
        plain, box, _ = detector.losses(images, padded(person))
        everything, ignored_box, _ = detector.losses(images, padded(person, [0, 0, 96, 64], ignored=1))
        logits, _, _ = detector(images)
    anchors = AnchorGrid(TINY).anchors(64, 96, torch.device("cpu"))
    (matched,) = match_anchors(anchors, padded(person))
    positive = matched >= 0
    loss = sigmoid_focal_loss(logits[0], positive, 0.25, 2.0)
    covered = match_anchors(anchors, padded([0, 0, 96, 64], ignored=1))[0] == UNDECIDED
    expected = loss[positive | ((matched == BACKGROUND) & ~covered)].sum() / positive.sum()
    torch.testing.assert_close(everything[0], expected)
    torch.testing.assert_close(box, ignored_box)
    assert everything < plain


def test_images_without_people_give_a_classification_loss_alone() -> None:
    no_one = pad_targets([targets(), targets()])
    classification, regression, _ = build_detector(TINY).losses(torch.rand(2, 3, 64, 96), no_one)
    assert (classification > 0).all() and (regression == 0).all()
    (classification.sum() + regression.sum()).backward()


def test_reduced_precision_stays_close() -> None:
    from personsearch_core.models.compute import arrange, autocast, prepare

    torch.manual_seed(0)
    detector = build_detector(TINY).eval()
    images = torch.rand(1, 3, 64, 96)
    compute = Compute(precision="bf16", channels_last=True)
    with torch.no_grad():
        expected, _, _ = detector(images)
        prepare(detector, compute)
        with autocast(compute, images.device):
            found, _, _ = detector(arrange(images, compute))
    torch.testing.assert_close(torch.sigmoid(found.float()), torch.sigmoid(expected), atol=2e-2, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_norm_equals_torchvisions(dtype: torch.dtype) -> None:
    maps = torch.randn(2, 8, 5, 4)
    theirs, own = FrozenBatchNorm2d(8, eps=1e-3), norm_layer("frozen_batch", 1e-3)(8)
    for name, buffer in theirs.named_buffers():
        buffer.copy_(torch.rand(8) + 0.5)
        own.get_buffer(name).copy_(buffer)
    found = own(maps.to(dtype))
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(found.float(), theirs(maps), rtol=tolerance, atol=tolerance)


def test_a_near_dead_channel_is_finite_in_half_precision() -> None:
    """COCO's weights have variances of 1e-12 and an epsilon of 0: a scale beyond float16's range."""
    theirs, own = FrozenBatchNorm2d(2, eps=0.0), norm_layer("frozen_batch", 0.0)(2)
    for norm in (theirs, own):
        norm.get_buffer("running_var").copy_(torch.tensor([1e-12, 1.0]))
    maps = torch.full((1, 2, 1, 1), 1e-5).half()
    torch.testing.assert_close(own(maps).float(), theirs(maps).float(), rtol=1e-3, atol=1e-6)
    assert own(maps).dtype == torch.float16 and torch.isfinite(own(maps)).all()


def test_boxes_are_clipped_to_the_picture_as_torchvision_clips_them(reference: RetinaNet) -> None:
    """1920x1080 on 640x640 leaves 280 rows of padding; the same output of the heads goes through both."""
    model = TINY.model_copy(
        update={"image_width": 640, "image_height": 640, "anchor_ratios": (0.5, 1.0, 2.0)}
    )
    grid, size = AnchorGrid(model), (640, 640)
    anchors, levels = grid.anchors(*size, torch.device("cpu")), grid.levels(*size)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, len(anchors), generator=generator)
    deltas = torch.randn(1, len(anchors), 4, generator=generator)
    (expected,) = reference.postprocess_detections(
        {
            "cls_logits": [part[..., None] for part in logits.split(levels, dim=1)],
            "bbox_regression": list(deltas.split(levels, dim=1)),
        },
        [list(anchors.split(levels))],
        [(360, 640)],
    )
    placement = place_image(1920, 1080, 640, 640)
    pictures = picture_boxes([placement], torch.empty(1, 3, *size))
    (found,) = suppress(
        best_candidates(logits, deltas, anchors, levels, pictures),
        1,
        score_threshold=0.0,
        nms_threshold=reference.nms_thresh,
        max_per_image=reference.detections_per_img,
    )
    torch.testing.assert_close(found.scores, expected["scores"])
    torch.testing.assert_close(found.boxes, expected["boxes"])
    assert found.boxes[:, 3].max() == 360


def test_padding_does_not_count_in_overlaps() -> None:
    """Two boxes that share the picture and part in the padding below it are one person."""
    logits, deltas = torch.tensor([[2.0, 1.0]]), torch.zeros(1, 2, 4)
    anchors = torch.tensor([[0.0, 300, 100, 380], [0.0, 300, 100, 640]])
    counts = []
    for placement in (place_image(640, 640, 640, 640), place_image(1920, 1080, 640, 640)):
        pictures = picture_boxes([placement], torch.empty(1, 3, 640, 640))
        candidates = best_candidates(logits, deltas, anchors, [2], pictures)
        (found,) = suppress(candidates, 1, score_threshold=0.5, nms_threshold=0.5, max_per_image=10)
        counts.append(len(found.boxes))
    assert counts == [2, 1]
