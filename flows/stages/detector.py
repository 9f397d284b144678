"""`detector`: training views of all datasets -> RetinaNet's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.config.models import Amount, Config, ViewRef
from flows.errors import Interrupted
from flows.plan.views import ViewSpec, read_scenes
from flows.stages.base import InputRef, Made, Stage, StageContext, ingest_name, last_checkpoint, processors_of
from personsearch_core.recipes import DetectorRecipe, Recipe
from storage.digests import digest_file, digest_safetensors

VERSION = 1
WEIGHTS = "detector.safetensors"


class TrainingRecipe(Recipe):
    detector: DetectorRecipe
    amounts: dict[str, Amount]
    """By input."""


class Options(Recipe):
    roots: dict[str, Path]
    """By input."""
    initial_weights: str | None
    """What the recipe names, or the file where it says `file`."""
    checkpoint_seconds: float


def stage(config: Config) -> Stage:
    recipe: DetectorRecipe = config.detector
    inputs, amounts, roots = {}, {}, {}
    for number, entry in enumerate(config.detector.train):
        inputs[f"train{number}"] = _view(entry)
        amounts[f"train{number}"] = entry.amount
    for number, view in enumerate(config.detector.validation):
        inputs[f"validation{number}"] = _view(view)
    for name, ref in inputs.items():
        assert ref.view is not None
        roots[name] = config.datasets[ref.view.dataset].root
    weights = recipe.model.initial_weights
    fixed = {}
    if weights is not None and Path(weights).is_file():
        # The file's content, not its name, is what the training starts from.
        fixed["initial_weights"] = digest_file(Path(weights))
        recipe = recipe.model_copy(
            update={"model": recipe.model.model_copy(update={"initial_weights": "file"})}
        )
    return Stage(
        name="detector",
        kind="detector",
        version=VERSION,
        recipe=_canonical(TrainingRecipe(detector=recipe, amounts=amounts)),
        maker="flows.stages.detector:make",
        inputs=inputs,
        fixed_inputs=fixed,
        options=Options(
            roots=roots, initial_weights=weights, checkpoint_seconds=config.run.checkpoint_seconds
        ).model_dump(mode="json"),
        processors=processors_of(config, several=True),
        resume_point=last_checkpoint,
    )


def _canonical(recipe: TrainingRecipe) -> dict[str, Any]:
    """As it enters the key: without `held_out` where nothing is, so that keys from before the field hold."""
    data = recipe.model_dump(mode="json")
    if not recipe.detector.training.held_out:
        del data["detector"]["training"]["held_out"]
    return data


def make(context: StageContext) -> Made:
    """Train; resumes from the newest checkpoint in the work area."""
    from flows.stages.models import stage_device
    from personsearch_core.data.sampling import TrainingSet
    from personsearch_core.training.detector import train_detector
    from personsearch_core.training.loop import RESUME_ONLY, LoopSettings, TrainingStopped

    options = Options.model_validate(context.options)
    recipe = TrainingRecipe.model_validate(context.recipe)
    model = recipe.detector.model.model_copy(update={"initial_weights": options.initial_weights})
    scenes = {
        name: read_scenes(context.artifacts[name].path, spec, options.roots[name])
        for name, spec in context.views.items()
    }
    entries = [
        TrainingSet(scenes[name], of.proportion, of.repeat, of.choose) for name, of in recipe.amounts.items()
    ]
    validation = [scene for name, part in scenes.items() if name.startswith("validation") for scene in part]
    try:
        result = train_detector(
            recipe.detector.model_copy(update={"model": model}),
            entries,
            validation,
            context.work,
            device=stage_device(context.processors),
            devices=context.processors.devices,
            settings=LoopSettings(checkpoint_seconds=options.checkpoint_seconds),
            progress=context.progress,
            should_stop=context.should_stop,
        )
    except TrainingStopped as stopped:
        raise Interrupted(str(stopped)) from stopped
    return Made(digest_safetensors(context.work / WEIGHTS), dict(result.metrics), RESUME_ONLY)


def _view(ref: ViewRef) -> InputRef:
    spec = ViewSpec(ref.dataset, ref.split, "boxes", ref.min_height)
    return InputRef(ingest_name(ref.dataset), spec)
