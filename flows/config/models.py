"""The YAML config of a run: datasets by name, and one section a stage.

Relative roots, the store and a file of weights resolve against the config file's folder. Unknown fields are
refused. Imports neither torch nor Prefect.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
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
    ValidationError,
    model_serializer,
    model_validator,
)

from data_catalog.rules import QueryRule, SplitRule
from data_catalog.suggestions import did_you_mean
from flows.config.devices import device_name
from flows.config.notify import notify_target
from flows.config.pinned_sections import detector_fields, pinned_roi, pins_of, reid_fields
from flows.config.pins import Pin, Section
from flows.config.problems import explain_problems
from flows.config.raw import PUBLISHED_WEIGHTS, STORE_VARIABLE, ExpandedPath, absolute, read_raw
from flows.errors import ConfigError
from personsearch_core.amounts import check_amounts
from personsearch_core.errors import PersonSearchError
from personsearch_core.recipes import (
    Compute,
    DetectionOptions,
    DetectionsRecipe,
    DetectorRecipe,
    EvaluationRecipe,
    FeatureOptions,
    FeaturesRecipe,
    GalleryRecipe,
    JointOptions,
    JointRecipe,
    Recipe,
    ReidRecipe,
    RoiRecipe,
    Variant,
)
from storage.tags import require_name

log = logging.getLogger(__name__)


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
        hint = "".join(
            f"; ${name} is not set, so its default was used: set it to the folder of the datasets"
            for name in self._unset
        )
        raise ConfigError(f"{field}: there is no folder {self.root}{hint}")


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
    """Instead of all other fields: a trained detector that is taken as it is, whatever the datasets hold now.
    A tag, `detector/KEY`, or the folder of an exported model (`./model`)."""


class PinnedDetector(DetectorSection):
    """The section that `use` stands for, from the model's own recipe."""

    train: tuple[TrainingEntry, ...] = ()
    pin: Pin


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, Mapping) else value


class ReidSection(ReidRecipe):
    """The re-ID branch and its training views."""

    train: Annotated[tuple[TrainingEntry, ...], Field(min_length=1), BeforeValidator(_as_tuple)]
    """A view, or a list with one view per dataset. Each dataset has features and identities of its own, and
    every batch draws identities of all of them, in proportion to what an epoch takes of each."""
    use: str | None = None
    """Instead of all other fields: a trained branch that is taken as it is, with the detector that it was
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
    """Number of GPUs that train the detector and extract features together."""
    threads: PositiveInt | None = None
    """CPU threads per stage (default: one per core)."""


class ComputeOptions(Processors):
    """How to do the work, as far as that does not change results: never part of a key."""

    checkpoint_seconds: PositiveFloat = 60.0
    """Seconds between checkpoints of a training."""
    memory_budget_gib: Annotated[float, Field(gt=0, le=2**20)] | None = None
    """Features up to this size are held in memory during re-ID training: the GPU's if it trains on one.
    Default: 4 GiB, or half of a GPU's free memory."""
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
    notify: Annotated[str | tuple[str, ...] | None, AfterValidator(notify_target)] = None
    """Gets one line when a run failed or its results got worse: a command, which reads the line from its
    standard input and runs without a shell, or an http(s) URL, which gets a POST with JSON: `text`, `run`."""


class Promotion(Recipe):
    """Moves a tag to the model of this run, only if it is not worse than the model that has the tag.

    Both are compared in every test of the config, by the same queries in the same images.
    """

    tag: Annotated[str, AfterValidator(require_name)]
    """Goes to the re-ID branch; of a joint training, to the detector."""
    metric: Literal["mAP", "rank1"] = "mAP"
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    """By how many percentage points it may be worse."""
    paired: bool = True
    """Compare with the lower end of the difference's 95 % interval over resampled queries; if false, with the
    difference alone."""


def _norms_differ(section: str, norm: str, weights: str, held: str) -> str:
    fitting = "'group'" if held == "group" else "'batch' or 'frozen_batch'"
    return (
        f"{section}: norm {norm!r} cannot start from initial_weights {weights!r}, whose norms are {held!r}: "
        f"use norm {fitting}, or other initial_weights"
    )


def _check_amounts(place: str, entries: Sequence[TrainingEntry]) -> None:
    try:
        if entries:  # a pinned model has none
            check_amounts([entry.amount for entry in entries])
    except PersonSearchError as error:
        raise ValueError(f"{place}: {error}") from error


class Config(Recipe):
    """A run: without `reid` it ends with the detector, without `evaluation` with the branch."""

    store: str
    """Where artifacts are kept: a folder, relative to the config file, or a URL such as s3://bucket/prefix."""
    datasets: Annotated[dict[str, DatasetSource], Field(min_length=1)]
    detector: DetectorSection
    roi: RoiRecipe = RoiRecipe()
    features: FeaturesSection = FeaturesSection()
    reid: ReidSection | None = None
    detections: DetectionOptions = DetectionOptions()
    gallery: GalleryRecipe = GalleryRecipe()
    evaluation: Annotated[tuple[EvaluationSection, ...], BeforeValidator(_as_tuple)] = ()
    report: ReportSection = ReportSection()
    speed: SpeedSection | None = None
    """Also time the architectures on this machine, as the stage `speed`."""
    promote: Promotion | None = None
    """Move a tag to this run's model if its results are not worse than those of the model that has the tag.
    By default, tags are only moved by hand (`store tag`)."""
    run: ComputeOptions = ComputeOptions()
    _written_as: str = PrivateAttr("")

    @property
    def written_as(self) -> str:
        """The file that the config was read from, with its `--set` options; empty if it was not read."""
        return self._written_as

    @model_validator(mode="after")
    def _views_name_datasets(self) -> Config:
        known = ", ".join(self.datasets)
        for place, view in self.views().items():
            if view.dataset not in self.datasets:
                near = did_you_mean(view.dataset, self.datasets)
                raise ValueError(
                    f"{place}.dataset: {view.dataset!r} is not a dataset of this config{near}; it has {known}"
                )
        tests = [entry.test.dataset for entry in self.evaluation]
        if len(set(tests)) != len(tests):
            raise ValueError(
                "evaluation: give one entry per dataset; for more settings, use that entry's options"
            )
        if self.evaluation and self.reid is None and self.detector.joint is None:
            raise ValueError("evaluation: there is nothing to evaluate without a reid section")
        if self.promote is not None and not self.evaluation:
            raise ValueError("promote: there is nothing to compare without an evaluation section")
        self._check_amounts()
        self._check_joint()
        self._check_norms()
        if self.reid is not None or self.joint_recipe() is not None:
            # Their own rules, such as which dtype goes with which variant, are checked here and now.
            _ = self.features_recipe(), self.detections_recipe()
        return self

    def _check_amounts(self) -> None:
        if self.reid is not None:
            _check_amounts("reid.train", self.reid.train)
            trained = [entry.dataset for entry in self.reid.train]
            if len(set(trained)) != len(trained):
                raise ValueError("reid.train: give one entry per dataset")
        _check_amounts("detector.train", self.detector.train)

    def _check_joint(self) -> None:
        joint = self.detector.joint
        if joint is None or self.detector.use is not None:
            return
        if self.reid is not None:
            raise ValueError("detector.joint trains the branch: leave out reid, or set it to null")
        trained = {entry.dataset for entry in self.detector.train}
        for name in joint.datasets:
            if name not in trained:
                raise ValueError(
                    f"detector.joint.datasets: {name!r} is not in detector.train, which has "
                    f"{', '.join(sorted(trained))}"
                )
        if self.detector.training.keep == "best":
            raise ValueError("detector.training.keep: best goes by detection alone; with joint, use last")

    def _check_norms(self) -> None:
        """Group norms have no statistics, batch norms have: neither starts from the weights of the other."""
        model = self.detector.model
        if model.norm == "group" and model.initial_weights in PUBLISHED_WEIGHTS:
            raise ValueError(_norms_differ("detector.model", "group", model.initial_weights, "batch"))
        place, section = ("reid", self.reid) if self.reid else ("detector.joint", self.detector.joint)
        if section is None:
            return
        branch = section.branch
        held = {"detector": model.norm, "imagenet": "batch"}.get(branch.initial_weights, branch.norm)
        if (branch.norm == "group") != (held == "group"):
            raise ValueError(_norms_differ(f"{place}.branch", branch.norm, branch.initial_weights, held))

    def views(self) -> dict[str, ViewRef]:
        """Every view that a stage takes, by its place in the config."""
        views: dict[str, ViewRef] = {
            f"detector.train.{at}": entry for at, entry in enumerate(self.detector.train)
        }
        views |= {f"detector.validation.{at}": view for at, view in enumerate(self.detector.validation)}
        if self.reid is not None:
            several = len(self.reid.train) > 1
            views |= {
                f"reid.train.{at}" if several else "reid.train": entry
                for at, entry in enumerate(self.reid.train)
            }
        return views | {f"evaluation.{at}.test": entry.test for at, entry in enumerate(self.evaluation)}

    @property
    def pins(self) -> dict[Section, Pin]:
        """The trained models that are taken as they are, by the stage in whose place they stand."""
        found: dict[Section, Pin] = {}
        if isinstance(self.detector, PinnedDetector):
            found["detector"] = self.detector.pin
        if isinstance(self.reid, PinnedReid):
            found["reid"] = self.reid.pin
        return found

    def training_views(self, part: Section) -> tuple[ViewRef, ...]:
        """What this config trains the detector, or the branch, on; nothing if that is pinned."""
        if part == "detector":
            return self.detector.train
        joint = self.detector.joint
        if joint is not None:
            return tuple(entry for entry in self.detector.train if entry.dataset in joint.datasets)
        return () if self.reid is None else self.reid.train

    def used_datasets(self) -> set[str]:
        """Those that a stage takes, and those whose growth since a pinned model's training is told."""
        used = {view.dataset for view in self.views().values()}
        learnt = {each.dataset for pin in self.pins.values() for each in pin.trained_on}
        return used | (learnt & self.datasets.keys())

    @property
    def reid_section(self) -> ReidSection:
        """The `reid` section; ConfigError where the config has none."""
        if self.reid is None:
            raise ConfigError("this config has no reid section")
        return self.reid

    @property
    def branch_stage(self) -> str:
        """The stage that trains the branch."""
        return "reid" if self.detector.joint is None else "detector"

    def joint_recipe(self) -> JointRecipe | None:
        """The section `detector.joint` with the ROI that the branch reads; None without that section."""
        if self.detector.joint is None:
            return None
        options = {name: getattr(self.detector.joint, name) for name in JointOptions.model_fields}
        return JointRecipe(**options, roi=self.roi.canonical())

    def features_recipe(self) -> FeaturesRecipe:
        """The section with the ROI that it pools and the dtype that goes with it."""
        return FeaturesRecipe(**dict(self.features) | self._pooled)

    def detections_recipe(self) -> DetectionsRecipe:
        """The section with the ROI that it pools and the dtype of the features."""
        return DetectionsRecipe(**dict(self.detections) | self._pooled)

    @property
    def _pooled(self) -> dict[str, Any]:
        dtype = self.features.dtype or ("uint8" if self.roi.variant == "disj" else "float16")
        return {"roi": self.roi.canonical(), "dtype": dtype}


HINTS = {
    "store": f"this field is missing; add it, pass --store, or set ${STORE_VARIABLE}",
    **{f"reid.{name}": f"roi.{name} is given, too; keep only that" for name in RoiRecipe.model_fields},
}
"""What to do about a field that is missing or unknown, where that is more than to write or to delete it."""


def load_config(path: Path, overrides: Iterable[str] = (), *, store: str | None = None) -> Config:
    """Read a YAML config, apply `a.b=value` overrides, and resolve its paths.

    Raises ConfigError with one message: which file, which field, what to do.
    """
    overrides = tuple(_in_roi(override) for override in overrides)
    raw = _with_pins(_with_roi(read_raw(path, overrides, store), path, overrides), path)
    if "members" in raw and "tables" in raw:
        raise ConfigError(f"{path} is a study, not a config; use: personsearch study run {path}")
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explained(error, path, overrides)) from error
    for name, source in config.datasets.items():
        root = raw["datasets"][name]["root"]
        source._unset = root.unset if isinstance(root, ExpandedPath) else ()
    config._written_as = " ".join([path.name, *(f"--set {override}" for override in overrides)])
    return _resolve_paths(config, path.parent.absolute())


def _in_roi(override: str) -> str:
    """A change of a field that has moved from `reid` to `roi`, as a change of that field."""
    name, equals, value = override.partition("=")
    moved = name.removeprefix("reid.")
    if not name.startswith("reid.") or moved not in RoiRecipe.model_fields:
        return override
    _say_moved("--set", moved)
    return f"roi.{moved}{equals}{value}"


def _with_roi(raw: dict[str, Any], path: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """A config of before `roi` was a section, with its fields moved there from `reid`.

    A file that has a field in both places keeps both, and the one under `reid` is refused.
    """
    reid, roi = raw.get("reid"), raw.get("roi") or {}
    if not isinstance(reid, dict) or not isinstance(roi, dict):
        return raw
    changed = {override.partition("=")[0] for override in overrides}
    reid, roi = dict(reid), dict(roi)
    for name in [name for name in reid if name in RoiRecipe.model_fields]:
        if name not in roi or f"roi.{name}" in changed:
            _say_moved(str(path), name)
            roi.setdefault(name, reid.pop(name))
            reid.pop(name, None)
    return {**raw, "reid": reid, **({"roi": roi} if roi else {})}


def _with_pins(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """A raw config with the trained models that it names in the place of their sections."""
    if not isinstance(raw.get("store"), str):
        return raw
    folder = path.parent.absolute()
    try:
        pins = pins_of(raw, _resolved_store(raw["store"], folder), folder)
        if not pins:
            return raw
        sections: dict[str, Any] = {"roi": pinned_roi(raw, pins) or {}}
        if (detector := pins.get("detector")) is not None:
            alone = raw.get("reid") is None
            sections["detector"] = PinnedDetector(**detector_fields(detector, with_branch=alone))
        if (branch := pins.get("reid")) is not None:
            sections["reid"] = PinnedReid(**reid_fields(branch))
    except ValidationError as error:
        raise ConfigError(
            f"{path}: the recipe of a pinned model is not one that this version reads: "
            f"{explain_problems(error, Config)[0]}"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return raw | sections


@cache
def _say_moved(where: str, name: str) -> None:
    """Once per process: a config is read several times in a run."""
    log.warning("%s: reid.%s has moved: write roi.%s (read as that for now)", where, name, name)


def _explained(error: ValidationError, path: Path, overrides: tuple[str, ...]) -> str:
    """Every problem, blamed on the file or, where the file alone does not have it, on `--set`."""
    own = set()
    if overrides:
        try:
            Config.model_validate(_with_roi(read_raw(path, (), None), path, ()))
        except ValidationError as of_file:
            own = {str(problem) for problem in explain_problems(of_file, Config, HINTS)}
    return "; ".join(
        problem.blamed_on(str(path), () if str(problem) in own else overrides)
        for problem in explain_problems(error, Config, HINTS)
    )


def store_of(path: Path, overrides: Iterable[str] = (), *, store: str | None = None) -> str:
    """The store of a config whose other fields may be wrong. Raises ConfigError when it cannot be told."""
    found = read_raw(path, overrides, store).get("store")
    if not isinstance(found, str):
        raise ConfigError(f"{path}: store: {HINTS['store']}")
    return _resolved_store(found, path.parent.absolute())


def _resolve_paths(config: Config, folder: Path) -> Config:
    sources = {
        name: source.model_copy(update={"root": Path(absolute(source.root, folder))})
        for name, source in config.datasets.items()
    }
    resolved: dict[str, Any] = {"datasets": sources, "store": _resolved_store(config.store, folder)}
    weights = config.detector.model.initial_weights
    if config.detector.use is None and weights is not None and weights not in PUBLISHED_WEIGHTS:
        file = absolute(weights, folder)
        if not Path(file).is_file():
            known = ", ".join(PUBLISHED_WEIGHTS)
            raise ConfigError(
                f"detector.model.initial_weights: {weights!r} is not one of {known}, and there is no "
                f"file {file}"
            )
        model = config.detector.model.model_copy(update={"initial_weights": file})
        resolved["detector"] = config.detector.model_copy(update={"model": model})
    return config.model_copy(update=resolved)


def _resolved_store(store: str, folder: Path) -> str:
    if "://" not in store:
        return absolute(store, folder)
    from storage.urls import names_a_place  # loads fsspec

    if not names_a_place(store):
        raise ConfigError(
            f"store: {store!r} does not name a place: give the whole URL, such as s3://bucket/prefix"
        )
    return store
