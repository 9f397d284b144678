"""How long stages take and how much memory they need, where a store has no artifact to go by.

All are of docs/benchmarks.md, at the size that it names; `cost` scales them by the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = "docs/benchmarks.md"

GPU = "H200"
CPU = "2 CPU cores"
"""The machines that the figures are of: docs/benchmarks.md calls the second one C."""


@dataclass(frozen=True)
class UnitCost:
    """Seconds per unit of work on a GPU and on a CPU; peak memory in GiB."""

    gpu: float
    cpu: float
    memory_gib: float | None = None
    where: str = ""
    """The section of docs/benchmarks.md."""


PIXELS = 640 * 640
BACKBONES: Mapping[str, float] = {"resnet18": 0.47, "resnet34": 0.95, "resnet50": 1.0}
"""Operations of a backbone relative to ResNet-50 (He et al. 2016, table 1: 1.8, 3.6 and 3.8 GFLOPs)."""

RELATIVE_TO_J3: Mapping[str, float] = {"disj": 2.3, "j2": 2.1, "j3": 1.0, "j4": 0.4}
"""Time of re-ID steps: `reid` of reid_*_cuhk_sysu and _prw in "The paper's settings at full size"."""

DETECTOR = UnitCost(1 / 145, 1 / 0.68, 7.5, "Detector loops against torchvision's")
"""Per image seen in training, ResNet-50 at 640x640, fp32."""

FEATURES = UnitCost(1.3 / 128, 18.4 / 128, 2.9, "Extraction")
"""Per image, J3, pooled and written."""

DETECTIONS = UnitCost(1 / 282 + 1.06 / 128, 1 / 2.18, 2.9, "Detector loops against torchvision's")
"""Per test image; on the GPU with the time that extraction adds for writing."""

REID: Mapping[str, UnitCost] = {
    variant: UnitCost(0.0187 / 128 * part, 1.8 / 128 * part, memory, "The re-ID step")
    for (variant, part), memory in zip(RELATIVE_TO_J3.items(), (12.0, 7.2, 4.1, 2.0), strict=True)
}
"""Per row of a batch."""

GALLERY: Mapping[str, UnitCost] = {
    variant: UnitCost(of.gpu / 3, of.cpu / 3, of.memory_gib, of.where) for variant, of in REID.items()
}
"""Per row and branch: a forward pass, a third of a training step."""

EVALUATION = UnitCost(1.21 / 2057, 1.21 / 2057, 0.4, "Evaluation")
"""Per query and setting: PRW's size."""

INGEST = UnitCost(10.8 / 11_816, 10.8 / 11_816, 0.7, "The catalog")
"""Per image, without its decoding."""

SPEED = UnitCost(0.5, 12.0, 3.0, "The four architectures' speed (Table 1b)")
"""Per case (images per batch, people per image) and round, all architectures; of runs of that table."""
