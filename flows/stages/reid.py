"""`reid`: pooled features -> the trained branch, and the branch as it was before training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flows.config.models import Config
from flows.errors import Interrupted
from flows.stages.base import (
    ArtifactInput,
    InputRef,
    Inputs,
    Made,
    Maker,
    Stage,
    StageContext,
    last_checkpoint,
    processors_of,
)
from flows.stages.detector import TRAINED_BRANCH, UNTRAINED_BRANCH
from personsearch_core.recipes import (
    BATCH_NORM_EPSILON,
    DetectorModel,
    Recipe,
    ReidRecipe,
    Variant,
    later,
    objective_versions,
)
from storage.digests import digest_parts, digest_safetensors

VERSION = 3
SAME_AT_EQUAL_EPSILON = 2
"""Version 3 gives the branch's norms the trunk's epsilon; where it had that before, its artifacts hold."""


class Network(Recipe):
    """What the branch takes over of the detector's network."""

    backbone: Literal["resnet18", "resnet34", "resnet50"]
    norm: Literal["frozen_batch", "batch", "group"]
    norm_epsilon: float


class TrainingRecipe(Recipe):
    reid: ReidRecipe
    variant: Variant
    network: Network
    objective_versions: Annotated[dict[str, int], Field(default_factory=dict), later({})]
    """Of objectives that other packages offer."""


class ReidInputs(Inputs):
    features: ArtifactInput
    detector: ArtifactInput | None = None
    """Where the branch starts from the detector's weights."""


class Options(Recipe):
    checkpoint_seconds: float
    memory_budget: int | None
    """Bytes of features that are held in memory."""


def stage(config: Config) -> Stage:
    recipe = config.reid_section
    inputs = {"features": InputRef("features")}
    if recipe.branch.initial_weights == "detector":
        inputs["detector"] = InputRef("detector")
    model, branch = config.detector.model, recipe.branch
    epsilon = branch.epsilon(model)
    if epsilon == branch.model_copy(update={"norm_epsilon": None}).epsilon(model):
        recipe = recipe.model_copy(update={"branch": branch.model_copy(update={"norm_epsilon": None})})
    of_imagenet = branch.norm == "frozen_batch" and branch.initial_weights == "imagenet"
    budget = config.run.memory_budget_gib
    return Stage(
        name="reid",
        kind="reid",
        version=SAME_AT_EQUAL_EPSILON if epsilon == branch.earlier_epsilon(model) else VERSION,
        recipe=TrainingRecipe(
            reid=recipe,
            variant=config.roi.variant,
            network=Network(
                backbone=model.backbone,
                norm=model.norm,
                norm_epsilon=BATCH_NORM_EPSILON if of_imagenet else model.epsilon,
            ),
            objective_versions=objective_versions(
                each for phase in recipe.phases for each in phase.objectives
            ),
        ).model_dump(mode="json"),
        maker="flows.stages.reid:MAKER",
        inputs=inputs,
        options=Options(
            checkpoint_seconds=config.run.checkpoint_seconds,
            memory_budget=None if budget is None else int(budget * 2**30),
        ).model_dump(mode="json"),
        processors=processors_of(config),
        resume_point=last_checkpoint,
    )


def make(context: StageContext[TrainingRecipe, ReidInputs, Options]) -> Made:
    """Train from the store alone; resumes from the newest checkpoint in the work area."""
    from safetensors.torch import load_file

    from flows.config.devices import stage_device
    from personsearch_core.identities import ReidLabels
    from personsearch_core.models.branch import build_branch
    from personsearch_core.models.weights import save_branch
    from personsearch_core.training.loop import RESUME_ONLY, LoopSettings, TrainingStopped
    from personsearch_core.training.reid import train_reid
    from storage.feature_store import open_features

    recipe, inputs, options = context.recipe, context.inputs, context.options
    network = recipe.network
    model = DetectorModel(
        backbone=network.backbone,
        norm=network.norm,
        norm_epsilon=network.norm_epsilon,
        initial_weights="imagenet",
    )
    device = stage_device(context.processors)
    state = None
    if inputs.detector is not None:
        state = load_file(inputs.detector.path / "detector.safetensors")
    branch = build_branch(recipe.variant, model, recipe.reid.branch, state, seed=recipe.reid.seed)
    save_branch(context.work / UNTRAINED_BRANCH, branch)
    with open_features(inputs.features.path) as reader:
        columns = (reader.index[name].to_pylist() for name in ("person_id", "image_id", "box_id", "view"))
        labels = ReidLabels.from_columns(*columns)
        try:
            result = train_reid(
                recipe.reid,
                branch,
                reader,
                labels,
                context.work,
                device=device,
                settings=LoopSettings(checkpoint_seconds=options.checkpoint_seconds),
                memory_budget=options.memory_budget,
                progress=context.progress,
                should_stop=context.should_stop,
            )
        except TrainingStopped as stopped:
            raise Interrupted(str(stopped)) from stopped
    save_branch(context.work / TRAINED_BRANCH, branch)
    digests = {name: digest_safetensors(context.work / name) for name in (TRAINED_BRANCH, UNTRAINED_BRANCH)}
    return Made(digest_parts(digests), dict(result.metrics), RESUME_ONLY)


MAKER = Maker(TrainingRecipe, ReidInputs, Options, make)
