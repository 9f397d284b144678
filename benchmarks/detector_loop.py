"""Our detector loops against torchvision's reference loops, in one run.

Training and inference of the same RetinaNet on the same JPEG files, decoding included. torchvision's side is
its reference engine reduced to the timed part: a Dataset of Pillow images, a DataLoader, its RetinaNet, and a
loss read back at every step. The two take turns, and medians are compared.

    python -m benchmarks.detector_loop [--size 640] [--batch 4] [--steps 4] [--rounds 3] [--json OUT]

`--ours-alone` leaves torchvision's loops out.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn
from torchvision.transforms.v2 import functional as F

from benchmarks.drawing import draw_scenes
from benchmarks.options import Device, Rounds, run_script
from flows.cli.json_file import Json, write_json
from flows.config.devices import torch_device
from personsearch_core.data.loader import training_batches
from personsearch_core.data.prefetch import brought, decode_threads
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.data.scenes import Scene
from personsearch_core.models.compute import arrange, autocast, prepare, quickest_compute
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.recipes import (
    Compute,
    DetectorModel,
    DetectorRecipe,
    DetectorSchedule,
    DetectorTraining,
)
from personsearch_core.speed import synchronise
from personsearch_core.training.detector import train_detector
from personsearch_core.training.validation import detect_boxes

PEOPLE = 8
WARM_UP = {"cpu": 1, "cuda": 5}
"""Steps that are not timed: a GPU's first ones compile, and record a CUDA graph."""


class ReferenceDataset(Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    """As torchvision's references read detection data: Pillow, a float tensor, a flip by chance."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        scene = self.scenes[index]
        image = F.to_dtype(F.pil_to_tensor(Image.open(scene.path).convert("RGB")), torch.float32, scale=True)
        boxes = torch.from_numpy(scene.boxes)
        if torch.rand(()) < 0.5:
            image = F.horizontal_flip(image)
            boxes = torch.stack(
                [scene.width - boxes[:, 2], boxes[:, 1], scene.width - boxes[:, 0], boxes[:, 3]], 1
            )
        return image, {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64)}


def reference_training(
    network: RetinaNet, loader: DataLoader[Any], steps: int, device: torch.device
) -> float:
    """Seconds per step of torchvision's train_one_epoch, without the first step."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    network.train()
    start = 0.0
    batches = _endless(loader)
    for step in range(steps + 1):
        if step == 1:
            start = time.perf_counter()
        images, targets = next(batches)
        images = [image.to(device) for image in images]
        targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
        loss = sum(network(images, targets).values())
        if not math.isfinite(loss.item()):
            raise FloatingPointError("the reference's loss is not finite")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    synchronise(device)
    return (time.perf_counter() - start) / steps


def our_training(recipe: DetectorRecipe, scenes: Sequence[Scene], device: torch.device) -> float:
    """Seconds per step of `train_detector`, without the first steps and the last."""
    assert recipe.training.steps is not None
    timed = range(WARM_UP[device.type], recipe.training.steps - 1)
    asked, times = 0, []

    def should_stop() -> bool:
        nonlocal asked
        if asked in (timed.start, timed.stop):
            synchronise(device)  # the host runs ahead of a GPU
            times.append(time.perf_counter())
        asked += 1
        return False

    with tempfile.TemporaryDirectory() as work:
        train_detector(
            recipe,
            [TrainingSet(scenes, repeat=1)],
            [],
            Path(work),
            device=device,
            should_stop=should_stop,
        )
    started, ended = times
    return (ended - started) / len(timed)


def bare_step(recipe: DetectorRecipe, scenes: Sequence[Scene], steps: int, device: torch.device) -> float:
    """Seconds of forward, backward and optimiser alone, on a batch in memory."""
    detector = prepare(build_detector(recipe.model, recipe.loss).to(device).train(), recipe.compute)
    optimiser = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    stream = TrainingStream([TrainingSet(scenes, repeat=1)], 0)
    batch = next(training_batches(stream, recipe, 0, 1)).to(device)
    images = arrange(batch.images, recipe.compute)
    start = 0.0
    for step in range(steps + 1):
        if step == 1:
            synchronise(device)
            start = time.perf_counter()
        optimiser.zero_grad()
        with autocast(recipe.compute, device):
            classification, regression, _ = detector.losses(images, batch.targets)
        (classification.mean() + regression.mean()).backward()
        optimiser.step()
    synchronise(device)
    return (time.perf_counter() - start) / steps


def loading(recipe: DetectorRecipe, scenes: Sequence[Scene], batches: int, device: torch.device) -> float:
    """Seconds per batch of our loader alone: decoding, augmentation, stacking, the way to the device."""
    stream = TrainingStream([TrainingSet(scenes, repeat=1)], 0)
    start = time.perf_counter()
    loaded = training_batches(stream, recipe, 0, batches, device=device)
    for _ in brought(loaded, lambda batch: batch.to(device), device):
        pass
    return (time.perf_counter() - start) / batches


def reference_inference(network: RetinaNet, loader: DataLoader[Any], device: torch.device) -> float:
    """Seconds per image of torchvision's evaluate, without the metric."""
    network.eval()
    start, count = time.perf_counter(), 0
    with torch.inference_mode():
        for images, _ in loader:
            network([image.to(device) for image in images])
            count += len(images)
    synchronise(device)
    return (time.perf_counter() - start) / count


def our_inference(detector: Detector, compute: Compute, scenes: Sequence[Scene]) -> float:
    """Seconds per image of `detect_boxes`."""
    start = time.perf_counter()
    count = sum(1 for _ in detect_boxes(detector, scenes, compute))
    return (time.perf_counter() - start) / count


def compare(
    size: int,
    batch: int,
    steps: int,
    rounds: int,
    passes: int,
    device: torch.device,
    *,
    ours_alone: bool = False,
) -> dict[str, float]:
    """Median images per second of every loop; inference makes `passes` passes over the images."""
    model = DetectorModel(image_width=size, image_height=size, norm="batch", initial_weights=None)
    training = DetectorTraining(
        steps=steps + WARM_UP[device.type],
        batch_size=batch,
        lr=1e-4,
        schedule=DetectorSchedule(kind="constant", warmup_steps=0),
    )
    eager = DetectorRecipe(model=model, training=training)
    quickest = quickest_compute(device)
    # Compilation pays off for inference over many images; a few training steps would pay for it every time.
    compiled = quickest.model_copy(update={"compile": True})
    best = eager.model_copy(update={"compute": quickest})
    on_gpu = model.model_copy(update={"decode": "nvjpeg"})
    detectors = {
        name: prepare(build_detector(each).to(device).eval(), compute, cuda_graphs=("candidates_graph",))
        for name, each, compute in (
            ("eager", model, Compute()),
            ("quickest", model, compiled),
            *((("nvJPEG", on_gpu, compiled),) if device.type == "cuda" else ()),
        )
    }
    network = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=1, min_size=size, max_size=size
    ).to(device)
    with tempfile.TemporaryDirectory() as folder:
        scenes = draw_scenes(Path(folder), 4 * batch, width=960, height=960, people=PEOPLE)
        loader, all_passes = (
            DataLoader(
                ReferenceDataset(scenes * repeats),
                batch,
                shuffle=True,
                num_workers=decode_threads(),
                collate_fn=_columns,
                persistent_workers=True,
            )
            for repeats in (1, passes)
        )
        timed: dict[str, Callable[[], float]] = {
            "training, torchvision": lambda: reference_training(network, loader, steps, device) / batch,
            "training, ours": lambda: our_training(eager, scenes, device) / batch,
            "training, ours, best": lambda: our_training(best, scenes, device) / batch,
            "our loader alone": lambda: loading(eager, scenes, 4 * steps, device) / batch,
            "bare step": lambda: bare_step(eager, scenes, steps, device) / batch,
            "inference, torchvision": lambda: reference_inference(network, all_passes, device),
            "inference, ours": lambda: our_inference(detectors["eager"], Compute(), scenes * passes),
            "inference, ours, best": lambda: our_inference(detectors["quickest"], compiled, scenes * passes),
        }
        if device.type == "cuda":
            nvjpeg = best.model_copy(update={"model": on_gpu})
            timed |= {
                "training, ours, best, nvJPEG": lambda: our_training(nvjpeg, scenes, device) / batch,
                "our loader alone, nvJPEG": lambda: loading(nvjpeg, scenes, 4 * steps, device) / batch,
                "inference, ours, best, nvJPEG": lambda: our_inference(
                    detectors["nvJPEG"], compiled, scenes * passes
                ),
            }
        if ours_alone:
            timed = {name: run for name, run in timed.items() if not name.endswith("torchvision")}
        for name in (each for each in timed if each.startswith("inference, ours")):
            for _ in range(2):  # compiles; records a CUDA graph
                timed[name]()
        seconds: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(rounds):
            for name, run in timed.items():
                seconds[name].append(run())
    return {name: 1 / statistics.median(values) for name, values in seconds.items()}


def main(
    size: Annotated[int, typer.Option(min=64, help="Width and height of the network input.")] = 640,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 4,
    steps: Annotated[int, typer.Option(min=2, help="Training steps, besides those that warm up.")] = 4,
    rounds: Rounds = 3,
    passes: Annotated[int, typer.Option(min=1, help="Passes over the images, for inference.")] = 1,
    ours_alone: Annotated[bool, typer.Option("--ours-alone", help="Leave out torchvision's loops.")] = False,
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    rates = compare(size, batch, steps, rounds, passes, torch_device(device), ours_alone=ours_alone)
    for name, rate in rates.items():
        reference = rates.get(f"{name.split(',')[0]}, torchvision", rate)
        print(f"{name:<29} {rate:8.2f} images/s  {rate / reference:5.2f}x")
    overhead = 1 - rates["training, ours"] / rates["bare step"]
    print(f"overhead of our loop: {100 * overhead:.1f} % of a step")
    write_json(json_file, {**rates, "overhead": overhead})


def _columns(batch: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*batch, strict=True))


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


if __name__ == "__main__":
    run_script(main, __doc__)
