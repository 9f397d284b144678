"""`personsearch benchmark compiled`: a detector's training step and inference as one graph, against eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
import typer
from rich.table import Column

from benchmarks.options import Device, Rounds
from benchmarks.speed import Backbone
from flows.cli.json_file import Json, write_json
from flows.cli.printing import plain_table, whole_lines
from flows.config.devices import torch_device
from personsearch_core.models.compute import arrange, autocast, prepare
from personsearch_core.models.detector import build_detector
from personsearch_core.models.targets import PaddedTargets, Targets, pad_targets
from personsearch_core.recipes import Compute, DetectorModel, Precision
from personsearch_core.speed import median_times
from personsearch_core.training.optimisation import build_optimiser, gradient_scaler, take_step


@dataclass(frozen=True)
class CompiledRow:
    """Medians of one run: images per second, and what the first call took to compile, in seconds."""

    part: str
    eager: float
    compiled: float
    compilation: float

    @property
    def ratio(self) -> float:
        return self.compiled / self.eager


def compiled(
    size: int = typer.Option(640, min=64, help="Width and height of the network input, in pixels."),
    batch: int = typer.Option(4, min=1, help="Images per batch."),
    people: int = typer.Option(8, min=0, help="People per image."),
    device: Device = "auto",
    backbone: Backbone = typer.Option("resnet50", help="resnet18, resnet34 or resnet50."),
    precision: Precision = typer.Option("fp32", help="fp32, bf16 or fp16."),
    channels_last: bool = typer.Option(False, help="Use the channels-last memory format."),
    rounds: Rounds = 5,
    json_file: Json = None,
) -> None:
    """Time a detector's training step and inference, compiled as one graph each, against eager.

    Example: personsearch benchmark compiled --size 320 --batch 2 --backbone resnet18
    """
    on = torch_device(device)
    model = DetectorModel.model_validate(
        {"backbone": backbone, "image_width": size, "image_height": size, "initial_weights": "imagenet"}
    )
    compute = Compute(precision=precision, channels_last=channels_last)
    console = whole_lines()
    with console.status("compiling and measuring"):
        rows = list(measure(model, compute, on, batch, people, rounds))
    figures = ("eager, images/s", "compiled, images/s", "ratio", "compilation, s")
    table = plain_table(
        "",
        *(Column(figure, justify="right") for figure in figures),
        title=f"{backbone}, {size}x{size}, batch {batch}, {precision}, {on}",
    )
    for row in rows:
        table.add_row(
            row.part,
            f"{row.eager:.2f}",
            f"{row.compiled:.2f}",
            f"{row.ratio:.2f}",
            f"{row.compilation:.0f}",
        )
    console.print(table)
    write_json(json_file, [asdict(row) | {"ratio": row.ratio} for row in rows])


def measure(
    model: DetectorModel, compute: Compute, device: torch.device, batch: int, people: int, rounds: int
) -> Iterator[CompiledRow]:
    """Eager and compiled take turns, on one batch that is in memory; weights are random."""
    images, targets = _batch(model, device, batch, people)
    ways = {"eager": compute, "compiled": compute.model_copy(update={"compile": True})}
    for part, make in (("training", _training), ("inference", _inference)):
        torch.manual_seed(0)
        runs = {name: make(model, each, images, targets) for name, each in ways.items()}
        first = {name: median_times({name: run}, device, 1, 0)[name] for name, run in runs.items()}
        seconds = median_times(runs, device, rounds, warm_up=2)
        yield CompiledRow(
            part,
            eager=batch / seconds["eager"],
            compiled=batch / seconds["compiled"],
            compilation=first["compiled"] - first["eager"],
        )


def _batch(
    model: DetectorModel, device: torch.device, batch: int, people: int
) -> tuple[torch.Tensor, PaddedTargets]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, model.image_height, model.image_width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    targets = []
    for _ in range(batch):
        corners = torch.rand(people, 2, generator=generator) * torch.tensor(shape[:1:-1]) * 0.75
        sides = torch.tensor([0.1, 0.25]) * torch.tensor(shape[:1:-1])
        targets.append(
            Targets(torch.cat([corners, corners + sides], 1), torch.zeros(people, dtype=torch.bool))
        )
    return images.to(device), pad_targets(targets).to(device)


def _training(
    model: DetectorModel, compute: Compute, images: torch.Tensor, targets: PaddedTargets
) -> Callable[[], object]:
    """Forward, backward and optimiser, as `train_detector` runs them."""
    device = images.device
    detector = prepare(build_detector(model).to(device).train(), compute, cuda_graphs=("losses_graph",))
    optimiser = build_optimiser(
        "sgd", detector.parameters(), lr=1e-4, weight_decay=1e-4, fused=device.type == "cuda"
    )
    scaler = gradient_scaler(compute, device)
    arranged = arrange(images, compute)

    def step() -> None:
        with autocast(compute, device):
            classification, regression, _ = detector.losses(arranged, targets)
        take_step(classification.mean() + regression.mean(), optimiser, scaler)

    return step


def _inference(
    model: DetectorModel, compute: Compute, images: torch.Tensor, targets: PaddedTargets
) -> Callable[[], object]:
    """Up to the detections of each image, suppression included."""
    detector = prepare(
        build_detector(model).to(images.device).eval(), compute, cuda_graphs=("candidates_graph",)
    )
    arranged = arrange(images, compute)

    def detect() -> None:
        with torch.inference_mode(), autocast(compute, images.device):
            detector.detect(arranged)

    return detect
