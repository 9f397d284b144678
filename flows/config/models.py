"""The YAML config of a run: datasets by name, and one section per stage.

Relative roots, the store and a file of weights resolve against the config file's folder. Unknown fields are
refused. Imports neither torch nor Prefect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    model_validator,
)

from data_catalog.suggestions import did_you_mean
from flows.config.foreign import ForeignFeatures
from flows.config.pins import Pin, Section
from flows.config.raw import PUBLISHED_WEIGHTS
from flows.config.sections import (
    ComputeOptions,
    DatasetSource,
    DetectorSection,
    EvaluationSection,
    FeaturesSection,
    ForeignSection,
    PinnedDetector,
    PinnedReid,
    Promotion,
    ReidSection,
    ReportSection,
    SpeedSection,
    TrainingEntry,
    ViewRef,
    as_tuple,
)
from flows.errors import ConfigError
from personsearch_core.amounts import check_amounts
from personsearch_core.errors import PersonSearchError
from personsearch_core.recipes import (
    DetectionOptions,
    DetectionsRecipe,
    FeatureOptions,
    FeaturesRecipe,
    GalleryRecipe,
    JointOptions,
    JointRecipe,
    Recipe,
    RoiRecipe,
)


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
    evaluation: Annotated[tuple[EvaluationSection, ...], BeforeValidator(as_tuple)] = ()
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
        self._check_tests()
        self._check_joint()
        self._check_norms()
        if self.reid is not None or self.joint_recipe() is not None:
            # Their own rules, such as which dtype goes with which variant, are checked here and now.
            _ = self.features_recipe(), self.detections_recipe()
            self._check_codec()
        return self

    def _check_codec(self) -> None:
        channels, stored = self.roi.row_shape(self.detector.model.backbone)[0], self.features.codec.channels
        if stored is not None and stored > channels:
            raise ValueError(
                f"features.codec.channels is {stored}: rows of {self.roi.variant} have {channels} channels"
            )

    def _check_amounts(self) -> None:
        if self.reid is not None:
            _check_amounts("reid.train", self.reid.train)
            trained = [entry.dataset for entry in self.reid.train]
            if len(set(trained)) != len(trained):
                raise ValueError("reid.train: give one entry per dataset")
        _check_amounts("detector.train", self.detector.train)

    def _check_tests(self) -> None:
        """Without a detector nothing is detected, and with one its detections are searched."""
        for at, entry in enumerate(self.evaluation):
            only = entry.ground_truth_boxes == "only"
            if self.foreign is not None and not only:
                raise ValueError(
                    f"evaluation.{at}.ground_truth_boxes: with features.use nothing can be detected, so only "
                    "ground-truth boxes are searched: write only"
                )
            if self.foreign is None and only:
                raise ValueError(
                    f"evaluation.{at}.ground_truth_boxes: `only` is for features.use; write true to score "
                    "ground-truth boxes, too"
                )

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
        if self.run.nodes > 1:
            raise ValueError("run.nodes: joint training computes on one device of one machine; set it to 1")

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
    def foreign(self) -> ForeignFeatures | None:
        """The features that are taken from elsewhere."""
        return self.features.foreign if isinstance(self.features, ForeignSection) else None

    @property
    def pins(self) -> dict[Section, Pin]:
        """The pinned models, by the stage that each replaces."""
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
        options = {name: getattr(self.features, name) for name in FeatureOptions.model_fields}
        return FeaturesRecipe(**options | self._pooled)

    def detections_recipe(self) -> DetectionsRecipe:
        """The section with the ROI that it pools and the dtype of the features."""
        return DetectionsRecipe(**dict(self.detections) | self._pooled)

    @property
    def _pooled(self) -> dict[str, Any]:
        dtype = self.features.dtype or ("uint8" if self.roi.variant == "disj" else "float16")
        return {"roi": self.roi.canonical(), "dtype": dtype}
