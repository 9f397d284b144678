"""`reid`: pooled features -> the trained branch, and the branch as it was before training."""

from __future__ import annotations

from flows.config.models import Config
from flows.errors import Interrupted
from flows.stages.base import InputRef, Made, Stage, StageContext, last_checkpoint
from storage.digests import digest_parts, digest_safetensors

VERSION = 2
TRAINED = "branch.safetensors"
UNTRAINED = "branch_untrained.safetensors"


def stage(config: Config) -> Stage:
    recipe = config.reid_recipe()
    inputs = {"features": InputRef("features")}
    if recipe.branch.initial_weights == "detector":
        inputs["detector"] = InputRef("detector")
    model = config.detector.model
    frozen = recipe.branch.norm == "frozen_batch"
    epsilon = recipe.branch.frozen_epsilon(model) if frozen else model.epsilon
    budget = config.run.memory_budget_gib
    return Stage(
        name="reid",
        kind="reid",
        version=VERSION,
        recipe={
            "reid": recipe.model_dump(mode="json"),
            "variant": config.roi.variant,
            "network": {"backbone": model.backbone, "norm": model.norm, "norm_epsilon": epsilon},
        },
        maker="flows.stages.reid:make",
        inputs=inputs,
        options={
            "device": config.run.device,
            "threads": config.run.threads,
            "checkpoint_seconds": config.run.checkpoint_seconds,
            "memory_budget": None if budget is None else int(budget * 2**30),
        },
        resume_point=last_checkpoint,
    )


def make(context: StageContext) -> Made:
    """Train from the store alone; resumes from the newest checkpoint in the work area."""
    from safetensors.torch import load_file

    from flows.stages.models import stage_device
    from personsearch_core.identities import ReidLabels
    from personsearch_core.models.branch import build_branch
    from personsearch_core.models.weights import save_branch
    from personsearch_core.recipes import DetectorModel, ReidRecipe
    from personsearch_core.training.loop import RESUME_ONLY, LoopSettings, TrainingStopped
    from personsearch_core.training.reid import train_reid
    from storage.feature_store import open_features

    recipe = ReidRecipe.model_validate(context.recipe["reid"])
    variant = context.recipe["variant"]
    model = DetectorModel(**context.recipe["network"], initial_weights="imagenet")
    device = stage_device(context.options)
    state = None
    if "detector" in context.artifacts:
        state = load_file(context.artifacts["detector"].path / "detector.safetensors")
    branch = build_branch(variant, model, recipe.branch, state, seed=recipe.seed)
    save_branch(context.work / UNTRAINED, branch)
    with open_features(context.artifacts["features"].path) as reader:
        columns = (reader.index[name].to_pylist() for name in ("person_id", "image_id", "box_id", "view"))
        labels = ReidLabels.from_columns(*columns)
        try:
            result = train_reid(
                recipe,
                branch,
                reader,
                labels,
                context.work,
                device=device,
                settings=LoopSettings(checkpoint_seconds=context.options["checkpoint_seconds"]),
                memory_budget=context.options["memory_budget"],
                progress=context.progress,
                should_stop=context.should_stop,
            )
        except TrainingStopped as stopped:
            raise Interrupted(str(stopped)) from stopped
    save_branch(context.work / TRAINED, branch)
    digests = {name: digest_safetensors(context.work / name) for name in (TRAINED, UNTRAINED)}
    return Made(digest_parts(digests), dict(result.metrics), RESUME_ONLY)
