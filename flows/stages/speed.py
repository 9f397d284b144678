"""`speed`: how long detecting and embedding people takes, by architecture: the paper's Table 1b."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from flows.config.devices import stage_device
from flows.config.models import Config
from flows.config.sections import Processors, SpeedSection
from flows.errors import ConfigError
from flows.provenance import cpu_name, field_of
from flows.stages.base import Inputs, Made, Maker, Nothing, Stage, StageContext, processors_of
from personsearch_core.recipes import DetectorModel, Recipe
from storage.digests import digest_json

VERSION = 1
ROWS = "speed.json"
_GPUS = Path("/proc/driver/nvidia/gpus")


class Machine(Recipe):
    """What times depend on beside the networks: another machine measures again."""

    device: str
    """The GPU's model, or the CPU's."""
    threads: int
    torch: str


class SpeedRecipe(SpeedSection):
    """What is timed, and where."""

    model: DetectorModel
    roi_scale: float
    machine: Machine


def stage(config: Config) -> Stage:
    section = config.speed
    if section is None:
        raise ConfigError("this config has no speed section")
    # Weights are random while it is timed; a published name stands for those of any origin.
    model = config.detector.model
    if model.initial_weights is not None:
        model = model.model_copy(update={"initial_weights": "imagenet"})
    recipe = SpeedRecipe(
        **section.model_dump(),
        model=model,
        roi_scale=config.roi.canonical().roi_scale,
        machine=this_machine(processors_of(config)),
    )
    return Stage(
        name="speed",
        kind="speed",
        version=VERSION,
        recipe=recipe.model_dump(mode="json"),
        maker="flows.stages.speed:MAKER",
        processors=processors_of(config),
        alone=True,
    )


def make(context: StageContext[SpeedRecipe, Inputs, Nothing]) -> Made:
    """Time every architecture and case; metrics are called `j3/4x20/ms_per_person`: 4 images of 20 people."""
    from personsearch_core.speed import measure_speed

    recipe = context.recipe
    rows = measure_speed(
        recipe.variants,
        recipe.images,
        recipe.people,
        model=recipe.model,
        device=stage_device(context.processors),
        compute=recipe.compute,
        rounds=recipe.rounds,
        roi_scale=recipe.roi_scale,
        progress=context.reached,
    )
    (context.work / ROWS).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    metrics: dict[str, Any] = {}
    for row in rows:
        per_person, ratio = _names(row.variant, row.images, row.people)
        metrics |= {per_person: row.ms_per_person, ratio: row.ratio}
    return Made(digest_json(metrics), metrics)


def metric_names(section: SpeedSection) -> list[str]:
    """What the metrics will be called; Disj is timed in any case, for the ratios."""
    cases = product(dict.fromkeys(("disj", *section.variants)), section.images, section.people)
    return [name for case in cases for name in _names(*case)]


def _names(variant: str, images: int, people: int) -> tuple[str, str]:
    case = f"{variant}/{images}x{people}"
    return f"{case}/ms_per_person", f"{case}/ratio"


MAKER = Maker(SpeedRecipe, Inputs, Nothing, make)


def this_machine(processors: Processors) -> Machine:
    """The device that a config's stages run on; asked of the system, since torch takes seconds to load."""
    threads = processors.threads or os.cpu_count() or 1
    gpu = None if processors.device == "cpu" else _gpu(processors.device)
    return Machine(device=gpu or cpu_name(), threads=threads, torch=version("torch"))


def _gpu(device: str) -> str | None:
    """The model of a GPU by its number; None where the driver knows none."""
    number = int(device.partition(":")[2] or 0)
    files = [path / "information" for path in sorted(_GPUS.glob("*"))]
    return field_of(files[number], "Model") if number < len(files) else None
