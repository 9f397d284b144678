"""`reid`: pooled features -> the trained branch, and the branch as it was before training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from flows.config.devices import stage_device
from flows.config.models import Config
from flows.config.sections import Amount, TrainingEntry
from flows.errors import Interrupted, StageError
from flows.stages.base import (
    ArtifactInput,
    InputRef,
    Inputs,
    Made,
    Maker,
    Stage,
    StageContext,
    feature_names,
    last_checkpoint,
    processors_of,
)
from flows.stages.detector import TRAINED_BRANCH, UNTRAINED_BRANCH, WEIGHTS
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
from storage.opening import open_store
from storage.store import Artifact, Store

if TYPE_CHECKING:
    import torch

    from personsearch_core.identities import ReidLabels
    from personsearch_core.models.branch import Branch
    from personsearch_core.training.ranks import Rank
    from personsearch_core.training.reid import ReidResult
    from storage.feature_store import FeatureReader

log = logging.getLogger(__name__)

VERSION = 3
SAME_AT_EQUAL_EPSILON = 2
"""Version 3 gives the branch's norms the backbone's epsilon; where it had that before, its artifacts hold."""
ONCE_EACH = Amount(repeat=1.0)
"""What an epoch takes of a dataset whose amount is not in the recipe: each identity once."""


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
    amounts: Annotated[dict[str, Amount], Field(default_factory=dict), later({})]
    """By input."""
    channels: Annotated[int | None, later(None)] = None
    """Of features from elsewhere, on which the branch has no blocks of a network."""


class ReidInputs(Inputs):
    features: dict[str, ArtifactInput]
    """By number, in the order of `feature_names`; '' for the only one."""
    detector: ArtifactInput | None = None
    """Where the branch starts from the detector's weights."""


class Options(Recipe):
    checkpoint_seconds: float
    memory_budget: int | None
    """Bytes of features that are held in memory."""
    datasets: Annotated[tuple[str, ...], later(())] = ()
    """Names of the inputs' datasets, if there are several."""
    shard_cache: Annotated[int | None, later(None)] = None
    """Bytes of shards that are kept on this machine, of features that are read from object storage."""


def stage(config: Config) -> Stage:
    recipe = config.reid_section
    names = feature_names(config)
    stores = [f"features{at}" for at in range(len(names))] if len(names) > 1 else ["features"]
    inputs = {store: InputRef(f"features{name}") for store, name in zip(stores, names, strict=True)}
    if recipe.branch.initial_weights == "detector":
        inputs["detector"] = InputRef("detector")
    model, branch = config.detector.model, recipe.branch
    epsilon = branch.epsilon(model)
    if epsilon == branch.model_copy(update={"norm_epsilon": None}).epsilon(model):
        recipe = recipe.model_copy(update={"branch": branch.model_copy(update={"norm_epsilon": None})})
    of_imagenet = branch.norm == "frozen_batch" and branch.initial_weights == "imagenet"
    budget, cache = config.run.memory_budget_gib, config.run.shard_cache_gib
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
            amounts=_amounts(dict(zip(stores, names.values(), strict=True))),
            channels=None if config.foreign is None else config.foreign.maps[0],
        ).model_dump(mode="json"),
        maker="flows.stages.reid:MAKER",
        inputs=inputs,
        options=Options(
            checkpoint_seconds=config.run.checkpoint_seconds,
            memory_budget=None if budget is None else int(budget * 2**30),
            datasets=tuple(entry.dataset for entry in names.values()) if len(names) > 1 else (),
            shard_cache=None if cache is None else int(cache * 2**30),
        ).model_dump(mode="json"),
        processors=processors_of(config, several=True),
        resume_point=last_checkpoint,
        in_place=() if cache is None else tuple(stores),
    )


def _amounts(entries: Mapping[str, TrainingEntry]) -> dict[str, Amount]:
    """Amounts other than each identity once: a single dataset's `proportion` comes to that, too."""
    if len(entries) == 1 and all(entry.proportion is not None for entry in entries.values()):
        return {}
    return {name: entry.amount for name, entry in entries.items() if entry.amount != ONCE_EACH}


ReidContext = StageContext[TrainingRecipe, ReidInputs, Options]


def make(context: ReidContext) -> Made:
    """Train from the store alone; resumes from the newest checkpoint in the work area."""
    from personsearch_core.models.states import load_weights
    from personsearch_core.models.weights import save_branch
    from personsearch_core.training.launch import train_together
    from personsearch_core.training.loop import RESUME_ONLY, LoopSettings, TrainingStopped

    recipe, options, detector = context.recipe, context.options, context.inputs.detector
    branch = _untrained(recipe, None if detector is None else detector.path)
    save_branch(context.work / UNTRAINED_BRANCH, branch)
    numbers = sorted(context.inputs.features, key=lambda number: int(number or 0))
    features = [context.inputs.features[number] for number in numbers]
    loop: dict[str, Any] = {
        "settings": LoopSettings(checkpoint_seconds=options.checkpoint_seconds),
        "progress": context.progress,
        "should_stop": context.should_stop,
    }
    device, processes = _processors(context, branch)
    share = _Share(recipe, options, numbers, context.store)
    try:
        if processes == 1:
            result = asdict(share.train(branch, features, context.work, device=device, **loop))
        else:
            job = share.as_json(features, None if detector is None else detector.path)
            result = train_together(
                f"{__name__}:train_rank", job, context.work, device=device, devices=processes, **loop
            )
            branch.load_state_dict(load_weights(context.work / TRAINED_BRANCH))
    except TrainingStopped as stopped:
        raise Interrupted(str(stopped)) from stopped
    save_branch(context.work / TRAINED_BRANCH, branch)
    digests = {name: digest_safetensors(context.work / name) for name in (TRAINED_BRANCH, UNTRAINED_BRANCH)}
    return Made(digest_parts(digests), dict(result["metrics"]), RESUME_ONLY)


def train_rank(job: dict[str, Any], rank: Rank) -> dict[str, Any]:
    """One process's share of a training by several; see `train_together`."""
    recipe, options = TrainingRecipe.model_validate(job["recipe"]), Options.model_validate(job["options"])
    store = open_store(job["store"])
    find = store.find if options.shard_cache is None else store.find_in_place
    features = [artifact for kind, key in job["features"] if (artifact := find(kind, key)) is not None]
    if len(features) < len(job["features"]):
        raise StageError(f"features are gone from {store}; run the same command again to rebuild them")
    branch = _untrained(recipe, None if job["detector"] is None else Path(job["detector"]))
    result = _Share(recipe, options, job["numbers"], store).train(
        branch,
        features,
        rank.work_dir,
        device=rank.device,
        group=rank.group,
        settings=rank.settings,
        progress=rank.progress,
        should_stop=rank.should_stop,
    )
    return asdict(result)


def _processors(context: ReidContext, branch: Branch) -> tuple[torch.device, int]:
    """The device, the first of several perhaps, and the number of processes that train together."""
    from personsearch_core.training.reid_inputs import has_batch_norm

    device, processes = stage_device(context.processors), context.processors.devices
    if processes > 1 and device.type == "cpu" and has_batch_norm(branch):
        log.info("the branch trains in one process: on a CPU, several could not synchronise its batch norms")
        processes = 1
    return device, processes


def _untrained(recipe: TrainingRecipe, detector: Path | None) -> Branch:
    """The branch as it begins; `detector`: the folder of the one whose weights it starts from, if any."""
    from personsearch_core.models.branch import build_branch
    from personsearch_core.models.states import load_weights

    network = recipe.network
    model = DetectorModel(
        backbone=network.backbone,
        norm=network.norm,
        norm_epsilon=network.norm_epsilon,
        initial_weights="imagenet",
    )
    return build_branch(
        recipe.variant,
        model,
        recipe.reid.branch,
        None if detector is None else load_weights(detector / WEIGHTS),
        seed=recipe.reid.seed,
        channels=recipe.channels,
    )


@dataclass(frozen=True)
class _Share:
    """What every process of a training does. numbers: of the datasets, in the order of their rows."""

    recipe: TrainingRecipe
    options: Options
    numbers: Sequence[str]
    store: Store | None

    def as_json(self, features: Sequence[Artifact], detector: Path | None) -> dict[str, Any]:
        """What `train_rank` takes."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "options": self.options.model_dump(mode="json"),
            "numbers": list(self.numbers),
            "features": [[each.kind, each.key] for each in features],
            "detector": None if detector is None else str(detector),
            "store": str(self.store),
        }

    def train(
        self, branch: Branch, features: Sequence[Artifact], work: Path, *, device: torch.device, **loop: Any
    ) -> ReidResult:
        """Train the branch, in place. loop: the last arguments of `train_reid`."""
        from personsearch_core.training.reid import train_reid
        from storage.feature_store import join_readers

        with ExitStack() as stack:
            readers = [stack.enter_context(self._open(each)) for each in features]
            return train_reid(
                self.recipe.reid,
                branch,
                join_readers(readers),
                _labels(readers, self.options.datasets),
                work,
                amounts=[self.recipe.amounts.get(f"features{each}", ONCE_EACH) for each in self.numbers],
                device=device,
                memory_budget=self.options.memory_budget,
                **loop,
            )

    def _open(self, features: Artifact) -> FeatureReader:
        """The features on this machine, or where they are, with shards that are kept here."""
        from storage.feature_store import ShardCache, open_features

        limit = self.options.shard_cache
        if self.store is None or limit is None:
            return open_features(features.path)
        cache = ShardCache(self.store.place.shards_path, limit, features.manifest.files)
        return open_features(self.store.place_of(features), shard_cache=cache)


def _labels(readers: Sequence[FeatureReader], datasets: Sequence[str]) -> ReidLabels:
    """Who is on the rows of the readers, one after the other."""
    from personsearch_core.identities import ReidLabels

    columns = ("person_id", "image_id", "box_id", "view")
    labels = [
        ReidLabels.from_columns(*(reader.index[name].to_pylist() for name in columns)) for reader in readers
    ]
    return ReidLabels.joined(dict(zip(datasets, labels, strict=True))) if datasets else labels[0]


MAKER = Maker(TrainingRecipe, ReidInputs, Options, make)
