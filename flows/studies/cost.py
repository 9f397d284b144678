"""What a study will take: seconds, disk and memory of each stage, and what that is concluded from."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.studies import figures
from flows.studies.figures import UnitCost
from flows.studies.nodes import Node
from flows.studies.work import (
    Built,
    ToMake,
    is_counted,
    likeness,
    rows_of_detections,
    rows_of_features,
    variant_of,
    work,
)
from flows.wording import counted
from personsearch_core.recipes import DEFAULT_ROI_SIZE, FeatureCodec, RoiRecipe
from storage.store import Store

START_SECONDS = 2.5
"""Until a stage's process has loaded what it needs."""
COMPARED = 100
"""Artifacts of a kind that are looked at, the newest first."""
_WITHOUT_TORCH = ("ingest", "evaluation", "report")


@dataclass(frozen=True)
class Cost:
    """What one stage will take; None is unknown.

    `gpu_seconds` and `cpu_seconds` are alternatives: with a GPU, and with the CPU alone. `uses_gpu` is false
    for stages that compute on the CPU in any case.
    """

    gpu_seconds: float | None
    cpu_seconds: float | None
    disk_bytes: int | None
    memory_bytes: int | None
    basis: str
    """Number of earlier artifacts, or the section of docs/benchmarks.md in quotes."""
    uses_gpu: bool = True

    def seconds(self, gpu: bool) -> float | None:
        return self.gpu_seconds if gpu else self.cpu_seconds


@dataclass(frozen=True)
class _Earlier:
    """What artifacts of one likeness took."""

    count: int
    seconds_per_unit: float
    memory_bytes: int | None


@dataclass
class Estimator:
    """Estimates nodes of one store, from what is in it or else from docs/benchmarks.md."""

    store: Store
    drawn: Mapping[Path, Mapping[str, int]] = field(default_factory=dict)
    """Counts of synthetic datasets that are not drawn yet, by root."""
    gpu: bool = field(default_factory=lambda: has_gpu())
    """Whether this machine has a GPU, so that what its store holds was made there."""
    _earlier: dict[str, Mapping[object, _Earlier]] = field(default_factory=dict)

    def cost(self, node: Node) -> Cost:
        origin = ToMake(node, self.drawn)
        amount = work(origin)
        figure = _figure(origin)
        units = None if figure is None or amount is None else amount * _relative_size(origin)
        gpu = None if figure is None or units is None else figure.gpu * units + START_SECONDS
        cpu = None if figure is None or units is None else figure.cpu * units + START_SECONDS
        memory = None if figure is None or figure.memory_gib is None else int(figure.memory_gib * 2**30)
        if gpu is None or figure is None:
            basis = "unknown before the datasets are read"
        else:
            basis = f'"{figure.where}"' + ("" if is_counted(origin) else " and published counts")
        earlier = self._of(origin.kind).get(likeness(origin))
        if earlier is not None and amount is not None:
            seconds = START_SECONDS + earlier.seconds_per_unit * amount
            gpu, cpu = (seconds, cpu) if self.gpu else (gpu, seconds)
            memory = earlier.memory_bytes or memory
            basis = f"{counted(earlier.count, 'earlier artifact')} of this store"
        if origin.kind in _WITHOUT_TORCH:
            gpu = cpu = cpu if gpu is None else gpu
        return Cost(gpu, cpu, _disk(origin), memory, basis, origin.kind not in _WITHOUT_TORCH)

    def _of(self, kind: str) -> Mapping[object, _Earlier]:
        if kind not in self._earlier:
            self._earlier[kind] = self._read(kind)
        return self._earlier[kind]

    def _read(self, kind: str) -> Mapping[object, _Earlier]:
        found: dict[object, list[tuple[float, int]]] = defaultdict(list)
        for made in self.store.newest_artifacts(kind)[:COMPARED]:
            origin = Built(made.manifest, self.store)
            amount = work(origin)
            if amount:
                seconds = max(made.manifest.seconds, 0.0) / amount
                found[likeness(origin)].append((seconds, made.manifest.peak_memory_bytes or 0))
        return {
            like: _Earlier(
                len(each), statistics.median(rate for rate, _ in each), max(peak for _, peak in each) or None
            )
            for like, each in found.items()
        }


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU; asked of the driver, since torch takes a second to load."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


def _figure(origin: ToMake) -> UnitCost | None:
    if origin.kind in ("reid", "gallery"):
        return (figures.REID if origin.kind == "reid" else figures.GALLERY)[variant_of(origin)]
    return {
        "ingest": figures.INGEST,
        "detector": figures.DETECTOR,
        "features": figures.FEATURES,
        "detections": figures.DETECTIONS,
        "evaluation": figures.EVALUATION,
        "speed": figures.SPEED,
    }.get(origin.kind)


def _relative_size(origin: ToMake) -> float:
    """The network's size, against that of the figures: ResNet-50 on 640x640, or on a whole ROI."""
    if origin.kind in ("reid", "gallery"):
        features = next(iter(origin.inputs("features").values()), None) or origin.input("detections")
        return 1.0 if features is None else _relative_roi(features)
    if origin.kind not in ("detector", "features", "detections"):
        return 1.0
    model = origin.node.config.detector.model
    return figures.BACKBONES[model.backbone] * model.image_width * model.image_height / figures.PIXELS


def _relative_roi(features: ToMake) -> float:
    roi = RoiRecipe.model_validate(features.recipe["roi"])
    (height, width), (whole_height, whole_width) = roi.roi_size, DEFAULT_ROI_SIZE[roi.variant]
    backbone = features.node.config.detector.model.backbone
    return figures.BACKBONES[backbone] * height * width / (whole_height * whole_width)


def _disk(origin: ToMake) -> int | None:
    """Bytes of an artifact whose size follows from its rows; others are small."""
    if origin.kind not in ("features", "detections"):
        return None
    rows = rows_of_features(origin) if origin.kind == "features" else rows_of_detections(origin)
    if rows is None:
        return None
    from storage.feature_store import features_bytes
    from storage.feature_store.codecs import stored_row

    roi = RoiRecipe.model_validate(origin.recipe["roi"])
    shape = roi.row_shape(origin.node.config.detector.model.backbone)
    codec = FeatureCodec.model_validate(origin.recipe.get("codec", {}))
    return features_bytes(rows, *stored_row(shape, str(origin.recipe["dtype"]), codec.values, codec.channels))
