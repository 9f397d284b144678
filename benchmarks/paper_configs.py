"""Run two real steps of each training of every config in configs/paper, at full size, on synthetic data.

The datasets are drawn in their native formats at real image sizes, with just enough images and identities
for the paper's batches. The initial weights are random, in the layout of torchvision's RetinaNet with 91
classes, so that loading them is covered. Disj's branch starts at random instead of from ImageNet weights. All
runs share one store, so a stage that several configs share is built and listed once.

    python -m benchmarks.paper_configs WORK [--only reid_j3_prw,...] [--json OUT]
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.options import PROGRAM, Work, chosen, run_script
from data_catalog.synthetic import (
    CuhkSysuSpec,
    Mot17Spec,
    PrwSpec,
    WiderPedestrianSpec,
    write_cuhk_sysu,
    write_mot17,
    write_prw,
    write_wider_pedestrian,
)
from flows.cli.json_file import Json, write_json

CONFIGS = Path(__file__).parents[1] / "configs" / "paper"
IMAGES, IDENTITIES, PEOPLE = 20, 36, (9, 12)
"""PRW and CUHK-SYSU: two batches of images, and more identities with several boxes than a batch needs."""
COCO_CLASSES = 91
RESIDUAL_GAIN = 0.1
"""Random residual blocks add up over fifty layers; trained ones, and these, add little each."""


def draw_datasets(data: Path) -> None:
    """Write the four datasets where configs/paper/datasets.yaml expects them."""
    prw = PrwSpec(IMAGES, 2, 1920, 1080, train_identities=IDENTITIES, people=PEOPLE)
    write_prw(data / "PRW-v16.04.20", prw, seed=1)
    cuhk_sysu = CuhkSysuSpec(IMAGES, 2, 800, 600, train_identities=IDENTITIES, people=PEOPLE)
    write_cuhk_sysu(data / "CUHK-SYSU", cuhk_sysu, seed=2)
    video = Mot17Spec(sequences=1, frames=6, width=1920, height=1080, people=(8, 10), detectors=())
    write_mot17(data / "MOT17Det", video, seed=3)
    crowd = WiderPedestrianSpec(width=1400, height=800, train_images=6, test_images=1, people=(2, 8))
    write_wider_pedestrian(data / "WIDER_Pedestrian_2018", crowd, seed=4)


def write_random_coco_weights(path: Path) -> None:
    """A .pth with the names and shapes of torchvision's RetinaNet-R50-FPN on COCO, as published."""
    torch.manual_seed(0)
    pyramid = LastLevelP6P7(256, 256)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=pyramid,
        trainable_layers=5,
    )
    state = RetinaNet(backbone, COCO_CLASSES).state_dict()
    for name, tensor in state.items():
        if name.endswith("bn3.weight"):
            tensor.fill_(RESIDUAL_GAIN)
    torch.save({_published_name(name): tensor for name, tensor in state.items()}, path)


def measure(work: Path, name: str) -> list[dict[str, Any]]:
    """Run one config up to its re-ID training; returns its stages with their cost."""
    results = work / f"{name}.json"
    command = [
        *PROGRAM,
        *("run", str(CONFIGS / f"{name}.yaml"), "--json", str(results)),
        *(word for override in _overrides(name) for word in ("--set", override)),
        *("--until", "reid" if name.startswith("reid") else "detector"),
    ]
    environment = {
        **os.environ,
        "PERSONSEARCH_DATA": str(work / "data"),
        "PERSONSEARCH_STORE": str(work / "store"),
        "PERSONSEARCH_COCO_WEIGHTS": str(work / "coco.pth"),
    }
    subprocess.run(command, check=True, env=environment)
    return [_measured(name, stage) for stage in json.loads(results.read_text())["stages"]]


def _overrides(name: str) -> Iterator[str]:
    yield "detector.training.steps=2"
    if name.startswith("reid"):
        yield from ("reid.phases.0.epochs=1", "reid.phases.1.epochs=1")
    if name.startswith("reid_disj"):
        yield "reid.branch.initial_weights=random"


def _measured(name: str, stage: dict[str, Any]) -> dict[str, Any]:
    manifest = json.loads((Path(stage["path"]) / "manifest.json").read_bytes())
    found = {field: stage[field] for field in ("stage", "key", "seconds")}
    return {"config": name, **found, "peak_memory_bytes": manifest["peak_memory_bytes"]}


def _published_name(name: str) -> str:
    """The heads' convolutions had numbers of their own when the weights were published: conv.0, conv.2 ..."""
    parts = name.split(".")
    if parts[0] == "head" and len(parts) == 6 and parts[2] == "conv":
        parts[3:5] = [str(2 * int(parts[3]))]
    return ".".join(parts)


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'config':<22} {'stage':<18} {'seconds':>8} {'peak memory':>12}")
    for row in rows:
        memory = f"{row['peak_memory_bytes'] / 2**30:.1f} GiB" if row["peak_memory_bytes"] else "-"
        print(f"{row['config']:<22} {row['stage']:<18} {row['seconds']:>8.1f} {memory:>12}")


def main(
    work: Work,
    only: Annotated[str | None, typer.Option(help="Configs, comma-separated (default: all).")] = None,
    json_file: Json = None,
) -> None:
    work = work.absolute()
    if not (work / "data").exists():
        draw_datasets(work / "data")
    if not (work / "coco.pth").exists():
        write_random_coco_weights(work / "coco.pth")
    configs = sorted(path.stem for path in CONFIGS.glob("*_*.yaml"))
    made: dict[str, dict[str, Any]] = {}
    for name in chosen("--only", only, configs) if only else configs:
        for row in measure(work, name):
            made.setdefault(f"{row['stage']}/{row['key']}", row)
    _print_table(list(made.values()))
    write_json(json_file, list(made.values()))


if __name__ == "__main__":
    run_script(main, __doc__)
