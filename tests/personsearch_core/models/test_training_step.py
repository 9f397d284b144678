"""The training step as one graph: its matching, losses, gradients and detections are those image by image."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from personsearch_core.boxes import place_image
from personsearch_core.data.augmentation import Colours
from personsearch_core.data.loader import TrainingBatch
from personsearch_core.models import anchors as anchors_module
from personsearch_core.models.anchors import AnchorGrid, _match, match_anchors
from personsearch_core.models.box_deltas import decode_boxes, encode_boxes
from personsearch_core.models.candidates import suppress, suppressed_at_once, suppressed_by_image
from personsearch_core.models.compute import prepare
from personsearch_core.models.detection_loss import detection_losses
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.models.targets import Targets, pad_targets, places
from personsearch_core.recipes import Compute, DetectionLoss
from personsearch_core.training.detector_process import _Losses
from personsearch_core.training.group import Together
from tests.personsearch_core.counting_graphs import counted_graphs
from tests.personsearch_core.models import per_image
from tests.personsearch_core.scene_files import TINY

SIZE = (64, 96)
MODEL = TINY.model_copy(update={"anchor_ratios": (0.5, 1.0, 2.0)})
ANCHORS = AnchorGrid(MODEL).anchors(*SIZE, torch.device("cpu"))


def drawn(people: int, regions: int, seed: int = 0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    count = people + regions
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([70.0, 40.0])
    sides = torch.rand(count, 2, generator=generator) * 40 + 4
    order = torch.randperm(count, generator=generator)
    return Targets(torch.cat([corners, corners + sides], dim=1), order >= people)


def boxes(*rows: list[float], ignored: int = 0) -> Targets:
    found = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return Targets(found, torch.arange(len(found)) >= len(found) - ignored)


PERSON = [10.0, 10.0, 30.0, 50.0]
CASES = {
    "nothing at all": [boxes(), boxes()],
    "only ignore regions": [boxes(PERSON, ignored=1), drawn(0, 3)],
    "one box beside no box": [boxes(PERSON), boxes()],
    "the same box three times": [boxes(PERSON, PERSON, PERSON), boxes(PERSON, PERSON, ignored=1)],
    "anchors as boxes": [Targets(ANCHORS[[5, 500, 900]], torch.zeros(3, dtype=torch.bool))],
    "two boxes as near to an anchor": [boxes([8, 8, 24, 40], [12, 8, 28, 40])],
    "a box that meets no anchor": [boxes([900, 900, 910, 920], PERSON)],
    "a crowd": [drawn(70, 20), drawn(17, 0, 1), drawn(3, 1, 2)],
    **{f"drawn {seed}": [drawn(5, 2, seed), drawn(0, 0), drawn(16, 1, seed + 50)] for seed in range(3)},
}


@pytest.fixture(params=CASES)
def batch(request: pytest.FixtureRequest) -> list[Targets]:
    return CASES[request.param]


@pytest.mark.parametrize(("most", "size"), [(0, 16), (16, 16), (17, 64), (64, 64), (65, 256), (1000, 1024)])
def test_places_grow_in_few_steps(most: int, size: int) -> None:
    assert places(most) == size


def test_padding_drops_no_box(batch: list[Targets]) -> None:
    padded = pad_targets(batch)
    for image, target in enumerate(batch):
        assert torch.equal(padded.people[image][padded.is_person[image]], target.boxes[~target.ignore])
        assert torch.equal(padded.regions[image][padded.is_region[image]], target.boxes[target.ignore])


def test_anchors_are_matched_as_image_by_image(batch: list[Targets], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = torch.stack([per_image.match(ANCHORS, target) for target in batch])
    padded = pad_targets(batch)
    assert torch.equal(match_anchors(ANCHORS, padded), expected)
    assert torch.equal(_match(ANCHORS, padded), expected), "with padding, as on an accelerator"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for images_at_once in (1, 2):
        pairs = images_at_once * len(ANCHORS) * max(padded.people.shape[1], padded.regions.shape[1])
        monkeypatch.setattr(anchors_module, "PAIRS_AT_ONCE", pairs)
        assert torch.equal(match_anchors(ANCHORS, padded), expected), "in parts"


@pytest.mark.parametrize("in_a_graph", [False, True])
@pytest.mark.parametrize("regression", ["l1", "smooth_l1"])
def test_losses_and_gradients_are_those_image_by_image(
    batch: list[Targets], regression: str, in_a_graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: in_a_graph)
    loss = DetectionLoss.model_validate({"regression": regression})
    generator = torch.Generator().manual_seed(0)
    shape = (len(batch), len(ANCHORS))
    given = [torch.randn(shape, generator=generator), torch.randn((*shape, 4), generator=generator)]
    found, gradients = _with_gradients(
        given, lambda *x: detection_losses(*x, ANCHORS, pad_targets(batch), loss)
    )
    expected, wanted = _with_gradients(given, lambda *x: per_image.losses(*x, ANCHORS, batch, loss))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=1e-5)


def _with_gradients(given, losses) -> tuple[Tensor, list[Tensor]]:
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    found = torch.stack(losses(*leaves))
    (found * torch.arange(1.0, found.numel() + 1).view_as(found)).sum().backward()
    return found.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("in_a_graph", [False, True])
def test_an_anchor_without_a_person_has_no_part_in_the_regression(
    in_a_graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one whose deltas are not finite."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: in_a_graph)
    target = [boxes(PERSON)]
    positive = match_anchors(ANCHORS, pad_targets(target)) >= 0
    deltas = torch.where(
        positive[..., None], 0.1, torch.full((1, len(ANCHORS), 4), torch.nan)
    ).requires_grad_()
    _, regression = detection_losses(
        torch.zeros(1, len(ANCHORS)), deltas, ANCHORS, pad_targets(target), DetectionLoss()
    )
    regression.sum().backward()
    assert regression.isfinite() and deltas.grad is not None
    assert not deltas.grad[~positive].any() and deltas.grad[positive].all()


def test_deltas_have_the_bits_of_torchvisions() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = drawn(len(ANCHORS), 0).boxes
    assert torch.equal(encode_boxes(rows, ANCHORS), per_image.BOX_CODER.encode_single(rows, ANCHORS))
    deltas = 3 * torch.randn(len(ANCHORS), 4, generator=generator)
    assert torch.equal(decode_boxes(deltas, ANCHORS), per_image.BOX_CODER.decode_single(deltas, ANCHORS))


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.9])
def test_suppression_at_once_is_that_image_by_image(overlap: float) -> None:
    """With duplicates, ties of scores, an image without boxes and one without any above the threshold."""
    generator = torch.Generator().manual_seed(0)
    found = torch.stack([drawn(300, 0, seed).boxes for seed in range(5)]).clamp(max=96)
    found[1, 100:200] = found[1, :100]
    scores = torch.rand(5, 300, generator=generator)
    scores[2] = (scores[2] * 4).round() / 4
    keep = scores > 0.3
    keep[3], keep[4, 1:] = False, False
    expected, at_once = (
        each(found, scores, keep, overlap) for each in (suppressed_by_image, suppressed_at_once)
    )
    assert [len(own) for own, _ in at_once][3:] == [0, int(keep[4, 0])]
    for one, other in zip(expected, at_once, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.fixture
def graphs() -> Iterator[CompileCounterWithBackend]:
    """Counts the graphs that `torch.compile` is given, and runs them without a compiler."""
    with counted_graphs("eager") as counter:
        yield counter


@pytest.fixture
def detectors() -> tuple[Detector, Detector]:
    """Equal ones, the second to be compiled, with one block per layer: tracing takes as long as there are."""
    torch.manual_seed(0)
    model = TINY.model_copy(update={"norm": "frozen_batch", "initial_weights": "imagenet"})
    plain = build_detector(model)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        setattr(plain.backbone.body, name, getattr(plain.backbone.body, name)[:1])
    return plain, prepare(copy.deepcopy(plain), Compute(compile=True))


IMAGES = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_training_step_is_one_graph(
    graphs: CompileCounterWithBackend, detectors: tuple[Detector, Detector]
) -> None:
    """For any number of people up to the places there are; losses and gradients are the eager ones."""
    for batch in ([drawn(5, 2), drawn(0, 0)], [drawn(1, 1), drawn(16, 3)]):
        results = [each.losses(IMAGES, pad_targets(batch), "j3") for each in detectors]
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
        for each, (classification, regression, _) in zip(detectors, results, strict=True):
            each.zero_grad()
            (classification.sum() + regression.sum()).backward()
        expected, found = ({n: p.grad for n, p in each.named_parameters()} for each in detectors)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert graphs.frame_count == 1


def test_inference_up_to_suppression_is_one_graph(
    graphs: CompileCounterWithBackend, detectors: tuple[Detector, Detector]
) -> None:
    placements = [place_image(120, 60, SIZE[1], SIZE[0]), place_image(96, 64, SIZE[1], SIZE[0])]
    for placed in (placements, placements[:1]):
        with torch.inference_mode():
            results = [each.eval().candidates(IMAGES, placed, "j3") for each in detectors]
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-4)
        found = [
            suppress(each, len(placed), score_threshold=0.0, nms_threshold=0.5, max_per_image=20)
            for each, _ in results
        ]
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-4)
    assert graphs.frame_count == 1


def test_a_step_that_processes_share_is_traced_whole(
    graphs: CompileCounterWithBackend, detectors: tuple[Detector, Detector], tmp_path: Path
) -> None:
    """torch cuts it where gradients are exchanged, and nowhere else; gradients are the eager ones."""
    plain, compiled = detectors
    scenes = (drawn(5, 2), drawn(0, 0))
    batch = TrainingBatch(
        IMAGES, pad_targets(scenes), torch.zeros(2, dtype=torch.int64), scenes, {}, (Colours(),) * 2
    )
    sum(plain.losses(IMAGES, batch.targets)[:2]).sum().backward()  # type: ignore[union-attr]
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "meeting"), 1), rank=0, world_size=1)
    try:
        classification, regression, _ = Together(torch.device("cpu")).wrap(_Losses(compiled, None))(batch)
        (classification + regression).sum().backward()
    finally:
        dist.destroy_process_group()
    expected, found = ({n: p.grad for n, p in each.named_parameters()} for each in detectors)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert graphs.frame_count > 0
