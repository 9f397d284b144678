"""How long detecting and embedding people takes, by architecture: measures the paper's Table 1b."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from personsearch_core.boxes import Boxes
from personsearch_core.data.network_input import PlacedImage, decoded
from personsearch_core.models.branch import build_branch
from personsearch_core.models.candidates import suppress
from personsearch_core.models.compute import arrange, autocast, model_device
from personsearch_core.models.detector import build_detector
from personsearch_core.recipes import BranchModel, Compute, DetectorModel, RoiRecipe, Variant
from personsearch_core.search.network import PersonSearchNet

PAPER_MS_PER_PERSON: dict[str, dict[tuple[int, int], float]] = {
    "disj": {(1, 5): 17.0, (4, 5): 13.6, (8, 5): 12.9, (1, 20): 7.4, (4, 20): 6.6, (8, 20): 6.4},
    "j2": {(1, 5): 12.3, (4, 5): 8.3, (8, 5): 7.4, (1, 20): 3.9, (4, 20): 2.7, (8, 20): 2.5},
    "j3": {(1, 5): 12.2, (4, 5): 7.8, (8, 5): 7.2, (1, 20): 3.4, (4, 20): 2.4, (8, 20): 2.2},
    "j4": {(1, 5): 11.1, (4, 5): 7.1, (8, 5): 6.5, (1, 20): 2.9, (4, 20): 1.9, (8, 20): 1.9},
}
"""Table 1b of Loesch et al. 2019, on a Titan X: by (images per batch, people per image)."""

SCENE_SIZE = (1920, 1080)
"""(width, height) of the scenes: PRW's."""

PERSON_SIZE = (120, 300)
"""(width, height) of a person in a scene, in pixels."""


@dataclass(frozen=True)
class SpeedRow:
    """One architecture on a batch; times are medians.

    seconds: detecting and embedding everyone in the batch. detector_seconds, branch_seconds: the networks
    alone. ratio: seconds of Disj / these; bound: the same of the networks alone.
    """

    variant: Variant
    images: int
    people: int
    seconds: float
    detector_seconds: float
    branch_seconds: float
    ratio: float
    bound: float

    @property
    def ms_per_person(self) -> float:
        return 1000 * self.seconds / (self.images * self.people)

    @property
    def paper_ms_per_person(self) -> float | None:
        """The paper's figure, if it has this case."""
        return PAPER_MS_PER_PERSON[self.variant].get((self.images, self.people))

    @property
    def paper_ratio(self) -> float | None:
        """The paper's speed-up over Disj, if it has this case."""
        own, disj = self.paper_ms_per_person, PAPER_MS_PER_PERSON["disj"].get((self.images, self.people))
        return None if own is None or disj is None else disj / own

    @property
    def part_of_bound(self) -> float:
        return self.ratio / self.bound


@dataclass(frozen=True, eq=False)
class _Batch:
    placed: list[PlacedImage]
    inputs: Tensor
    boxes: list[Boxes]


def measure_speed(
    variants: Sequence[Variant],
    images: Sequence[int],
    people: Sequence[int],
    *,
    model: DetectorModel,
    device: torch.device,
    compute: Compute | None = None,
    rounds: int = 5,
    warm_up: int = 2,
    roi_scale: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SpeedRow]:
    """Time each architecture for each number of images per batch and people per image.

    Weights are random, scenes are noise and boxes are drawn: none of this changes the work. The scenes are
    already decoded on the device and, for the backbone, placed on the network's input; disj cuts its crops
    from them there. Architectures take turns within each round, so that disturbances affect all alike. Disj
    is always measured, because the others are compared with it. `roi_scale` is that of `RoiRecipe`.
    """
    compute = compute or Compute()
    wanted: list[Variant] = [*dict.fromkeys(("disj", *variants))]
    networks = _networks(wanted, model, device, compute, roi_scale)
    rows: list[SpeedRow] = []
    cases = [(n_images, n_people) for n_images in images for n_people in people]
    for number, (n_images, n_people) in enumerate(cases):
        batch = _draw_batch(n_images, n_people, networks["disj"])
        times = median_times(_timed_parts(networks, batch), device, rounds, warm_up)
        rows += [_row(variant, n_images, n_people, times) for variant in wanted]
        progress(number + 1, len(cases))
    return rows


def median_times(
    parts: dict[str, Callable[[], object]], device: torch.device, rounds: int, warm_up: int
) -> dict[str, float]:
    """Median seconds of each part; parts take turns, and an accelerator is synchronised."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for round_number in range(warm_up + rounds):
        for name, run in parts.items():
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            if round_number >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in times.items()}


def _networks(
    variants: Iterable[Variant],
    model: DetectorModel,
    device: torch.device,
    compute: Compute,
    roi_scale: float,
) -> dict[Variant, PersonSearchNet]:
    detector = build_detector(model).to(device).eval()
    recipe = BranchModel(initial_weights="random", norm="frozen_batch")
    return {
        variant: PersonSearchNet(
            detector,
            build_branch(variant, model, recipe).to(device),
            RoiRecipe(variant=variant, roi_scale=roi_scale),
            compute,
        )
        for variant in variants
    }


def _draw_batch(n_images: int, n_people: int, network: PersonSearchNet) -> _Batch:
    rng = np.random.default_rng(0)
    width, height = SCENE_SIZE
    device = model_device(network.detector)
    placed, boxes = [], []
    for _ in range(n_images):
        scene = network.place(torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)))
        placed.append(scene._replace(image=None if scene.image is None else scene.image.to(device)))
        corner = rng.uniform(0, 1, (n_people, 2)) * (width - PERSON_SIZE[0], height - PERSON_SIZE[1])
        boxes.append(np.concatenate([corner, corner + PERSON_SIZE], axis=1).astype(np.float32))
    inputs = arrange(
        torch.stack(decoded([each.pixels for each in placed], device)).to(device), network.compute
    )
    return _Batch(placed, inputs, boxes)


def _timed_parts(networks: dict[Variant, PersonSearchNet], batch: _Batch) -> dict[str, Callable[[], object]]:
    n_people = sum(len(own) for own in batch.boxes)
    return {
        "detector": _detection(networks["disj"], batch),
        **{f"all {variant}": _everything(network, batch) for variant, network in networks.items()},
        **{f"branch {variant}": _branch_alone(network, n_people) for variant, network in networks.items()},
    }


def _detection(network: PersonSearchNet, batch: _Batch) -> Callable[[], Tensor | None]:
    """Detection including suppression; returns the shared map."""

    @torch.inference_mode()
    def detect() -> Tensor | None:
        candidates, shared = network.candidates(batch.inputs, [each.placement for each in batch.placed])
        suppress(candidates, len(batch.placed), score_threshold=0.5, nms_threshold=0.5, max_per_image=100)
        return shared

    return detect


def _everything(network: PersonSearchNet, batch: _Batch) -> Callable[[], object]:
    """Detection, then embedding of the drawn people (detections would depend on the weights)."""
    detect = _detection(network, batch)

    @torch.inference_mode()
    def search() -> object:
        return network.embed(batch.placed, batch.boxes, detect())

    return search


def _branch_alone(network: PersonSearchNet, n_people: int) -> Callable[[], object]:
    roi = network.roi
    device = next(network.branch.parameters()).device
    shape = (n_people, *roi.row_shape(network.detector.model.backbone))
    if roi.variant == "disj":
        pooled = torch.zeros(shape, dtype=torch.uint8, device=device)
    else:
        pooled = torch.rand(shape, device=device)
    pooled = arrange(pooled, network.compute)

    @torch.inference_mode()
    def embed() -> object:
        with autocast(network.compute, device):
            return network.branch.embed(pooled)

    return embed


def _row(variant: Variant, images: int, people: int, times: dict[str, float]) -> SpeedRow:
    detector, branch, crops = times["detector"], times[f"branch {variant}"], times["branch disj"]
    return SpeedRow(
        variant=variant,
        images=images,
        people=people,
        seconds=times[f"all {variant}"],
        detector_seconds=detector,
        branch_seconds=branch,
        ratio=times["all disj"] / times[f"all {variant}"],
        bound=(detector + crops) / (detector + branch),
    )


def synchronise(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
