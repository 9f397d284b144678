"""The sections of a config file, as models. Imports neither torch nor Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from data_catalog.rules import QueryRule, SplitRule
from flows.config.devices import device_name
from flows.config.foreign import ForeignFeatures
from flows.config.notify import notify_target
from flows.config.pins import Pin
from flows.config.rendezvous import rendezvous_name
from flows.errors import ConfigError, missing
from personsearch_core.recipes import (
    Compute,
    DetectorRecipe,
    EvaluationRecipe,
    FeatureOptions,
    JointOptions,
    Recipe,
    ReidRecipe,
    Variant,
)
from storage.tags import require_name

Kind = Literal[
    "ingest", "detector", "features", "reid", "detections", "gallery", "evaluation", "report", "speed"
]
"""Of stages, in the order in which they are built; stages of one kind do the same for different datasets."""


class DatasetSource(Recipe):
    """Where a dataset lies and which adapter reads it; neither name nor root enters a training's key."""

    adapter: str
    """A native format; `personsearch datasets list` shows them all."""
    root: Path
    """The dataset's folder, relative to the config file."""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Options of the adapter; `personsearch datasets list` shows them."""
    queries: QueryRule | None = None
    """For a dataset with identities but without queries: how to draw the queries of the protocol `drawn`."""
    splits: SplitRule | None = None
    """For a dataset without splits: how to split its images."""
    allow_empty: bool = False
    """Accept a root without images, a split with images but no boxes, and a split that is mostly damaged."""
    _unset: tuple[str, ...] = PrivateAttr(())

    def require_root(self, field: str) -> None:
        """Raise ConfigError, naming the field and what sets it, if the folder is missing."""
        if self.root.is_dir():
            return
        if self.root.exists():
            raise ConfigError(f"{field}: {self.root} is a file: give the folder of the whole dataset")
        hint = "".join(
            f"; ${name} is not set, so its default was used: set it to the folder of the datasets"
            for name in self._unset
        )
        raise ConfigError(f"{field}: {missing(self.root, 'folder')}{hint}")


class ViewRef(Recipe):
    """A split of a dataset, perhaps filtered."""

    dataset: str
    """A name under `datasets`."""
    split: str
    min_height: PositiveFloat | None = None
    """Boxes shorter than this, in pixels, become ignore regions."""


class Amount(Recipe):
    """How much of a view an epoch takes: one of the three."""

    proportion: PositiveFloat | None = None
    """This view's share of an epoch's images, or of its identities in `reid.train`."""
    repeat: PositiveFloat | None = None
    """Passes over the view's images or identities per epoch; fractions are allowed."""
    choose: PositiveInt | None = None
    """Images or identities of the view per epoch."""

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        given = [name for name in ("proportion", "repeat", "choose") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of proportion, repeat and choose, not {' and '.join(given)}")
        return self

    @model_serializer(mode="wrap")
    def _given(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in fields(self).items() if value is not None}


class TrainingEntry(Amount, ViewRef):
    """A view that is trained on, by default with `repeat: 1`."""

    @property
    def amount(self) -> Amount:
        """The amount given, or the default."""
        if not (self.proportion or self.repeat or self.choose):
            return Amount(repeat=1.0)
        return Amount(proportion=self.proportion, repeat=self.repeat, choose=self.choose)


class JointSection(JointOptions):
    """The branch in the detector's training, instead of `reid`: L = L_det + weight * L_reid (section 2 of
    Loesch et al. 2019). It reads the shared map of the detector's own batch at its people, and learns at the
    detector's rate, by its optimiser, for as many steps.
    """

    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Datasets of `detector.train` whose identities the branch learns; others give boxes alone."""


class DetectorSection(DetectorRecipe):
    """The detector, its training views and its validation views."""

    train: Annotated[tuple[TrainingEntry, ...], Field(min_length=1)]
    validation: tuple[ViewRef, ...] = ()
    joint: JointSection | None = None
    """By default the branch has a training of its own, `reid`."""
    use: str | None = None
    """Instead of all other fields: a trained detector that is used unchanged, whatever the datasets hold now.
    A tag, `detector/KEY`, or the folder of an exported model (`./model`)."""


class PinnedDetector(DetectorSection):
    """The section that `use` stands for, from the model's own recipe."""

    train: tuple[TrainingEntry, ...] = ()
    pin: Pin


def as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, Mapping) else value


class ReidSection(ReidRecipe):
    """The re-ID branch and its training views."""

    train: Annotated[tuple[TrainingEntry, ...], Field(min_length=1), BeforeValidator(as_tuple)]
    """A view, or a list with one view per dataset. Each dataset has features and identities of its own, and
    every batch draws identities of all of them, in proportion to what an epoch takes of each."""
    use: str | None = None
    """Instead of all other fields: a trained branch that is used unchanged, with the detector that it was
    trained on. A tag, `reid/KEY`, or the folder of an exported model."""

    @property
    def entries(self) -> tuple[TrainingEntry, ...]:
        """The views in the order in which their rows and identities are numbered: by dataset."""
        return tuple(sorted(self.train, key=lambda entry: entry.dataset))


class PinnedReid(ReidSection):
    """The section that `use` stands for, from the model's own recipe."""

    train: tuple[TrainingEntry, ...] = ()
    pin: Pin


class FeaturesSection(FeatureOptions):
    """Which boxes are cached, in which views and in what format."""

    dtype: Literal["float16", "float32", "uint8"] | None = None
    """Default: float16, or uint8 for the crops of disj."""
    use: str | None = None
    """Instead of a detector and of all other fields: a folder of features that another program computed, by
    the ids of boxes. The branch is then pooling and an embedding, and tests take ground-truth boxes only."""


class ForeignSection(FeaturesSection):
    """The section that `use` stands for."""

    foreign: ForeignFeatures


class NoDetector(DetectorSection):
    """What stands for the detector where features come from elsewhere."""

    train: tuple[TrainingEntry, ...] = ()


class EvaluationSection(EvaluationRecipe):
    """The test view and how to score a search in it; a run's headline is the first entry's first protocol."""

    test: ViewRef


class SpeedSection(Recipe):
    """Which architectures are timed, on which batches: the detector's network and `roi.roi_scale`, random
    weights."""

    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = ("disj", "j2", "j3", "j4")
    images: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 4, 8)
    """Images per batch."""
    people: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (5, 20)
    """People per image."""
    rounds: PositiveInt = 5
    """The median of this many is reported."""
    compute: Compute = Compute()


class ReportSection(Recipe):
    """What the report shows."""

    title: str = "Person search"
    scenes: Annotated[int, Field(ge=0)] = 6
    """Number of scenes shown with their detections."""
    queries: Annotated[int, Field(ge=0)] = 8
    """Retrieval strips: this many of the hardest queries, and as many spread over the rest."""
    ranks: PositiveInt = 10
    """Matches per strip."""


class Processors(Recipe):
    """The processors that a stage computes on."""

    device: Annotated[str, AfterValidator(device_name)] = "auto"
    """`cpu`, `cuda` or `cuda:1`; `auto` is a GPU if there is one, otherwise the CPU."""
    devices: PositiveInt = 1
    """Number of GPUs that train the detector and the branch, and extract features, together."""
    threads: PositiveInt | None = None
    """CPU threads per stage (default: one per core). The last bits of a detector and of its detections depend
    on it; no key does."""


class TrackerSection(Recipe):
    """A tracker of runs: MLflow, or one that another package offers."""

    name: str
    """`mlflow`, or the entry point of an installed package."""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """For `mlflow`: `uri` of its server (default: $MLFLOW_TRACKING_URI) and `experiment`."""

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        from flows.tracking.protocol import require_options  # looks at installed packages

        require_options(self.name, self.options)
        return self


class ComputeOptions(Processors):
    """How to do the work, as far as that does not change results: never part of a key."""

    nodes: PositiveInt = 1
    """Number of machines that train the detector together, with `devices` GPUs each: this one, and others
    that run `personsearch join`."""
    rendezvous: Annotated[str, AfterValidator(rendezvous_name)] | None = None
    """For `nodes` above 1: HOST:PORT at which the other machines reach this one (default port: 29400). Anyone
    who reaches it can take part in the training."""
    checkpoint_seconds: PositiveFloat = 60.0
    """Seconds between checkpoints of a training."""
    memory_budget_gib: Annotated[float, Field(gt=0, le=2**20)] | None = None
    """Features up to this size are held in memory during re-ID training: the GPU's if it trains on one.
    Default: 4 GiB, or half of a GPU's free memory."""
    shard_cache_gib: Annotated[float, Field(gt=0, le=2**20)] | None = None
    """Train re-ID on features of a store on object storage without downloading them first: rows come by range
    requests, and shards stay on this machine up to this size. Default: features are downloaded."""
    dask: str | None = None
    """Address of a Dask scheduler for ingest, extraction and large galleries (default: local processes)."""
    workers: PositiveInt | None = None
    """Processes that extract features (default: one per device), and threads that rank (default: one)."""
    check_images: bool = True
    """Before any training, decode every image of every view once."""
    test_images_in_training: Literal["refuse", "warn"] = "refuse"
    """What to do if a test image is also a training image."""
    stage_timeout_hours: PositiveFloat | None = None
    """A stage that takes longer is stopped; the next run resumes it from its checkpoint."""
    trackers: Annotated[tuple[TrackerSection, ...], BeforeValidator(as_tuple)] = ()
    """Trackers that follow the run besides TensorBoard; one that fails costs a warning. Default: none."""
    notify: Annotated[str | tuple[str, ...] | None, AfterValidator(notify_target)] = None
    """Gets one line when a run failed or its results got worse: a command, which reads the line from its
    standard input and runs without a shell, or an http(s) URL, which gets a POST with JSON: `text`, `run`."""

    @property
    def stage_timeout_seconds(self) -> float | None:
        return None if self.stage_timeout_hours is None else 3600 * self.stage_timeout_hours

    @model_validator(mode="after")
    def _nodes_meet(self) -> Self:
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError(
                f"nodes is {self.nodes}: set run.rendezvous to HOST:PORT, where the others reach this machine"
            )
        return self


class Promotion(Recipe):
    """Moves a tag to the model of this run, only if it is not worse than the model that has the tag.

    Both are compared in every test of the config, by the same queries in the same images.
    """

    tag: Annotated[str, AfterValidator(require_name)]
    """The tag. It points to the re-ID branch or, after joint training, to the detector."""
    metric: Literal["mAP", "rank1"] = "mAP"
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    """By how many percentage points it may be worse."""
    paired: bool = True
    """Compare with the lower end of the difference's 95 % interval over resampled queries; if false, with the
    difference alone."""
