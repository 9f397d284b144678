"""What features and detections cost when their dataset has grown, against building them from scratch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from rich.table import Table

from benchmarks.drawing import draw_scenes
from benchmarks.extraction import MODEL, PEOPLE, ExtractionBenchmark, measure_extraction
from benchmarks.growing import GrowingScenes, Timed, make_stages, write_config
from benchmarks.options import VAR, Folder, temporary_folder
from flows.cli.json_file import Json, write_json
from flows.cli.printing import plain_table, whole_lines
from flows.run.template import TEMPLATE
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.pooling.detections import detect_scenes
from personsearch_core.pooling.extraction import SHARD_ROWS
from personsearch_core.recipes import DetectionsRecipe, DetectorModel

KINDS = {"features": "train", "detections": "test"}
"""The stages that are measured, and the split that each works on."""
GROWTH = 0.01
AT_MOST = 0.03
MARGIN = 1.02
"""More images than the rate, which is measured on few, asks for."""
_IMAGES = 16
_BATCH = {"batch_images": 1}
"""On a CPU as fast as batches of 8, and no part of a batch is padding where few images are new."""


@dataclass(frozen=True)
class GrowthBenchmark:
    """`images` by stage before the growth; the other fields are those of `benchmark extraction`."""

    folder: Path
    images: Mapping[str, int]
    model: DetectorModel = MODEL
    size: tuple[int, int] = (1920, 1080)


def measure_growth(size: GrowthBenchmark) -> dict[str, Any]:
    """Make the stages of a dataset, let it grow, and make them again: beside the earlier ones, and alone.

    Each time is that of a stage's process with its start, as in a run: the first that computes loads torch,
    too. New images come last in the order of rows.
    """
    torch.manual_seed(0)
    detector = build_detector(size.model).eval()
    scenes = GrowingScenes(size.folder / "data", *size.size, people=PEOPLE)
    config = write_config(
        size.folder / "growth.yaml", scenes.root, size.model, features=_BATCH, detections=_BATCH
    )
    grown = {kind: count + math.ceil(GROWTH * count) for kind, count in size.images.items()}
    scenes.write({KINDS[kind]: range(count) for kind, count in size.images.items()})
    _as_a_run(config, size.folder / "store", detector)
    scenes.write({KINDS[kind]: range(count) for kind, count in grown.items()})
    beside = _as_a_run(config, size.folder / "store", detector)
    alone = _as_a_run(config, size.folder / "new", detector)
    stages = {kind: _figures(beside[kind], alone[kind], size.images[kind], grown[kind]) for kind in KINDS}
    return {
        "ratio": max(stage["ratio"] for stage in stages.values()),
        "digests_equal": all(stage["digests_equal"] for stage in stages.values()),
        "stages": stages,
    }


def _as_a_run(config: Path, store: Path, detector: Detector) -> dict[str, Timed]:
    TEMPLATE.end()  # what another run has loaded is not there
    return make_stages(config, store, detector, tuple(KINDS))


def _figures(beside: Timed, alone: Timed, before: int, after: int) -> dict[str, Any]:
    return {
        "full_seconds": alone.seconds,
        "growth_seconds": beside.seconds,
        "ratio": beside.seconds / alone.seconds,
        "rows": int(beside.artifact.manifest.made_by["rows"]["of"]),
        "reused_rows": beside.taken,
        "images": after,
        "new_images": after - before,
        "seconds_per_image": alone.seconds / after,
        "digests_equal": beside.artifact.content_digest == alone.artifact.content_digest,
    }


def seconds_per_image(folder: Path) -> dict[str, float]:
    """What an image costs here: in `features` as `benchmark extraction` measures it, and in `detections`."""
    size = ExtractionBenchmark(variants=("j3",), rounds=1)
    written = next(one for one in measure_extraction(folder, size) if one.at_most is not None)
    images = size.shards * SHARD_ROWS // PEOPLE
    width, height = size.images
    scenes = draw_scenes(folder / "images", _IMAGES, width=width, height=height, people=PEOPLE)
    recipe = DetectionsRecipe.model_validate(_BATCH)
    found = detect_scenes(build_detector(MODEL), recipe, scenes, [scene.boxes for scene in scenes])
    next(found)  # it also loads what the others find in memory
    started = time.perf_counter()
    rest = len(list(found))
    return {
        "features": written.seconds / images,
        "detections": (time.perf_counter() - started) / rest,
    }


def growth(
    seconds: float = typer.Option(150.0, min=1, help="Seconds that each full stage takes, at least."),
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure features and detections of a dataset that has grown by 1 %, against a full build.

    Example: personsearch benchmark growth --json growth.json
    """
    console = whole_lines()
    with temporary_folder("growth", folder) as temporary, console.status("measuring"):
        rates = seconds_per_image(temporary / "rates")
        images = {kind: math.ceil(MARGIN * seconds / rate) for kind, rate in rates.items()}
        found = measure_growth(GrowthBenchmark(temporary, images))
    console.print(_table(found))
    write_json(json_file, {**found, "seconds": seconds, "expected_seconds_per_image": rates})


def _table(found: Mapping[str, Any]) -> Table:
    columns = ("stage", "images", "new", "rows", "taken", "from scratch", "grown", "ratio", "promised", "")
    table = plain_table(*columns)
    for kind, stage in found["stages"].items():
        kept = stage["ratio"] <= AT_MOST and stage["digests_equal"]
        table.add_row(
            kind,
            f"{stage['images']:,}",
            f"{stage['new_images']:,}",
            f"{stage['rows']:,}",
            f"{stage['reused_rows']:,}",
            f"{stage['full_seconds']:.1f} s",
            f"{stage['growth_seconds']:.1f} s",
            f"{stage['ratio']:.2%}",
            f"<= {AT_MOST:.0%}",
            "[green]holds[/]" if kept else "[red]missed[/]",
        )
    return table
