"""`detector`: training views of all datasets -> RetinaNet's weights, and a branch's in a joint training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from flows.config.devices import stage_device
from flows.config.models import Config
from flows.config.rendezvous import rendezvous_address
from flows.config.sections import Amount
from flows.errors import Interrupted
from flows.provenance import code
from flows.stages.base import (
    Inputs,
    Made,
    Maker,
    Stage,
    StageContext,
    ViewInput,
    last_checkpoint,
    processors_of,
    view_input,
)
from personsearch_core.recipes import DetectorRecipe, JointRecipe, Recipe, later, objective_versions
from storage.digests import digest_file, digest_parts, digest_safetensors

if TYPE_CHECKING:
    from personsearch_core.training.machines import Machines

VERSION = 1
BEST_VERSION = 2
"""Of trainings that keep the best weights: version 2 measures AP with boxes clipped to the picture."""
WEIGHTS = "detector.safetensors"
TRAINED_BRANCH = "branch.safetensors"
UNTRAINED_BRANCH = "branch_untrained.safetensors"
"""Of a joint training, and of the stage `reid`."""
HISTORY = "history.parquet"
"""Metrics by step, of both stages."""


class TrainingRecipe(Recipe):
    detector: DetectorRecipe
    amounts: dict[str, Amount]
    """By input."""
    joint: Annotated[JointRecipe | None, later(None)] = None
    identities: Annotated[tuple[str, ...], later(())] = ()
    """Inputs whose people a joint training learns to tell apart."""
    objective_versions: Annotated[dict[str, int], Field(default_factory=dict), later({})]
    """Of a joint training's objectives that other packages offer."""


class DetectorInputs(Inputs):
    train: dict[str, ViewInput]
    validation: dict[str, ViewInput] = Field(default_factory=dict)
    """Both by their numbers in the config."""


class Options(Recipe):
    initial_weights: str | None
    """What the recipe names, or the file where it says `file`."""
    checkpoint_seconds: float
    rendezvous: Annotated[str | None, later(None)] = None
    """Where other machines join the training, if there are several."""
    nodes: Annotated[int, later(1)] = 1


def stage(config: Config) -> Stage:
    recipe, joint = config.detector, config.joint_recipe()
    learnt = () if recipe.joint is None else recipe.joint.datasets
    train = {f"train{number}": entry for number, entry in enumerate(recipe.train)}
    validation = {f"validation{number}": view for number, view in enumerate(recipe.validation)}
    amounts = {name: entry.amount for name, entry in train.items()}
    identities = tuple(name for name, entry in train.items() if entry.dataset in learnt)
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
        version=VERSION if recipe.training.keep == "last" else BEST_VERSION,
        recipe=TrainingRecipe(
            detector=recipe,
            amounts=amounts,
            joint=joint,
            identities=identities,
            objective_versions=objective_versions(joint.objectives if joint else ()),
        ).model_dump(mode="json"),
        maker="flows.stages.detector:MAKER",
        inputs={
            name: view_input(config, ref, "people" if name in identities else "boxes")
            for name, ref in (train | validation).items()
        },
        fixed_inputs=fixed,
        options=Options(
            initial_weights=weights,
            checkpoint_seconds=config.run.checkpoint_seconds,
            rendezvous=config.run.rendezvous if config.run.nodes > 1 else None,
            nodes=config.run.nodes,
        ).model_dump(mode="json"),
        processors=processors_of(config, several=joint is None),
        alone=config.run.nodes > 1,  # a second one could not listen where the others join
        resume_point=last_checkpoint,
    )


def make(context: StageContext[TrainingRecipe, DetectorInputs, Options]) -> Made:
    """Train; resumes from the newest checkpoint in the work area."""
    from personsearch_core.data.sampling import TrainingSet
    from personsearch_core.training.detector import train_detector
    from personsearch_core.training.loop import RESUME_ONLY, LoopSettings, TrainingStopped

    recipe, inputs, options = context.recipe, context.inputs, context.options
    model = recipe.detector.model.model_copy(update={"initial_weights": options.initial_weights})
    entries = []
    for number, view in inputs.train.items():
        of = recipe.amounts[f"train{number}"]
        identities = f"train{number}" in recipe.identities
        entries.append(TrainingSet(view.scenes(), of.proportion, of.repeat, of.choose, identities))
    validation = [scene for view in inputs.validation.values() for scene in view.scenes()]
    try:
        result = train_detector(
            recipe.detector.model_copy(update={"model": model}),
            entries,
            validation,
            context.work,
            device=stage_device(context.processors),
            devices=context.processors.devices,
            machines=_machines(options),
            joint=recipe.joint,
            settings=LoopSettings(checkpoint_seconds=options.checkpoint_seconds),
            progress=context.progress,
            should_stop=context.should_stop,
        )
    except TrainingStopped as stopped:
        raise Interrupted(str(stopped)) from stopped
    files = (WEIGHTS,) if recipe.joint is None else (WEIGHTS, TRAINED_BRANCH, UNTRAINED_BRANCH)
    digests = {name: digest_safetensors(context.work / name) for name in files}
    digest = digests[WEIGHTS] if recipe.joint is None else digest_parts(digests)
    return Made(digest, dict(result.metrics), RESUME_ONLY)


def _machines(options: Options) -> Machines | None:
    from personsearch_core.training.machines import Machines

    if options.rendezvous is None:
        return None
    return Machines(options.nodes, *rendezvous_address(options.rendezvous), code())


MAKER = Maker(TrainingRecipe, DetectorInputs, Options, make)
