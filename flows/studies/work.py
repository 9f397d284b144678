"""How much work a stage is, in units that its time grows with: images, rows, queries.

The same count is made of stages to come and of the artifacts of a store, so that one tells of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data_catalog.adapters import load_adapter
from flows.config.sections import Amount
from flows.studies.nodes import Node
from personsearch_core.amounts import per_epoch
from personsearch_core.evaluation.settings import settings_of
from personsearch_core.recipes import EvaluationRecipe, FeaturesRecipe, RoiRecipe
from storage.manifest import Manifest
from storage.store import Store

DETECTED_PER_IMAGE = 6
"""Detections of a test image that are kept: at most a hundred, in the paper's datasets this many."""
PEOPLE_PER_IMAGE = 4


@cache
def _published(adapter: str) -> Mapping[str, int]:
    """The totals of an adapter's publications; looking for the adapter takes 20 ms."""
    found: dict[str, int] = {}
    for each in getattr(load_adapter(adapter), "published", ()):
        found = {**each.counts, **found}
    return found


@dataclass(frozen=True)
class ToMake:
    """A node, whose stage is to be made, as an origin."""

    node: Node
    drawn: Mapping[Path, Mapping[str, int]]
    """Counts of synthetic datasets, by root."""

    @property
    def kind(self) -> str:
        return self.node.stage.kind

    @property
    def recipe(self) -> Mapping[str, Any]:
        return self.node.stage.recipe

    def input(self, name: str) -> ToMake | None:
        found = self.node.inputs.get(name)
        return None if found is None else ToMake(found, self.drawn)

    def inputs(self, kind: str) -> Mapping[str, ToMake | None]:
        """The inputs of a name that may be numbered, `features0` and `features1` for `features`."""
        return {name: self.input(name) for name in self.node.inputs if name.startswith(kind)}

    def split(self, name: str) -> str:
        """The split that a view among the inputs takes."""
        view = self.node.stage.inputs[name].view
        return "" if view is None else view.split

    @property
    def counts(self) -> Mapping[str, int]:
        """Of an ingest: `images`, `train.images`, ...; those of the original dataset as long as it is not
        read."""
        made = self.node.artifact
        if made is not None:
            return dict(made.manifest.metrics.get("counts", {}))
        root = self.node.config.datasets[str(self.recipe["dataset"])].root
        return self.drawn.get(root) or _published(str(self.recipe["adapter"]))


@dataclass(frozen=True)
class Built:
    """An artifact of a store as an origin; None of its inputs is read before it is asked for."""

    manifest: Manifest
    store: Store

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def recipe(self) -> Mapping[str, Any]:
        return self.manifest.identity.recipe

    def input(self, name: str) -> Built | None:
        found = self.store.named(self.manifest.sources.get(name, ""))
        return None if found is None else Built(found.manifest, self.store)

    def inputs(self, kind: str) -> Mapping[str, Built | None]:
        return {name: self.input(name) for name in self.manifest.sources if name.startswith(kind)}

    def split(self, name: str) -> str:
        """Manifests do not say; nearly all datasets call their splits so."""
        return "test" if name in ("test", "truth") else "train"

    @property
    def counts(self) -> Mapping[str, int]:
        return dict(self.manifest.metrics.get("counts", {}))


WorkItem = ToMake | Built
"""A stage, or the artifact of one: its recipe, and what it is made from."""


def likeness(origin: WorkItem) -> tuple[Any, ...]:
    """Stages of a kind for which this is equal take equally long per unit of work."""
    recipe = origin.recipe
    if origin.kind == "detector":
        model = recipe["detector"]["model"]
        compute = recipe["detector"]["compute"]["precision"]
        return (model["backbone"], model["image_width"], model["image_height"], compute)
    if origin.kind in ("features", "detections"):
        roi = RoiRecipe.model_validate(recipe["roi"])
        detector = origin.input("detector")
        return (roi.variant, roi.roi_size, None if detector is None else likeness(detector))
    if origin.kind == "reid":
        features = next(iter(origin.inputs("features").values()), None)
        return (recipe["network"]["backbone"], None if features is None else likeness(features)[:2])
    if origin.kind == "gallery":
        detections = origin.input("detections")
        return (None if detections is None else likeness(detections)[:2],)
    return ()


def work(origin: WorkItem) -> float | None:
    """Units of work; None where they cannot be counted."""
    counters: dict[str, Callable[[], float | None]] = {
        "ingest": lambda: origin.counts.get("images", origin.counts.get("train.images")),
        "detector": lambda: _detector(origin),
        "features": lambda: _count(origin, "people", "images"),
        "reid": lambda: _reid(origin),
        "detections": lambda: _count(origin, "test", "images"),
        "gallery": lambda: _gallery(origin),
        "evaluation": lambda: _evaluation(origin),
        "speed": lambda: (
            len(origin.recipe["images"]) * len(origin.recipe["people"]) * origin.recipe["rounds"]
        ),
    }
    counter = counters.get(origin.kind)
    found = None if counter is None else counter()
    return None if found is None else float(found)


def is_counted(origin: ToMake) -> bool:
    """Whether no published count stands for a dataset that a stage depends on: all are read, or drawn."""
    if origin.kind == "ingest":
        root = origin.node.config.datasets[str(origin.recipe["dataset"])].root
        return origin.node.artifact is not None or root in origin.drawn
    return all(is_counted(ToMake(node, origin.drawn)) for node in origin.node.inputs.values())


def variant_of(origin: WorkItem) -> str:
    """disj, j2, j3 or j4."""
    if origin.kind == "gallery":
        detections = origin.input("detections")
        return "j3" if detections is None else variant_of(detections)
    if origin.kind == "reid":
        return str(origin.recipe["variant"])
    return str(origin.recipe["roi"]["variant"])


def rows_of_features(origin: WorkItem) -> int | None:
    """Rows of a store of training features."""
    people = origin.input("people")
    if people is None:
        return None
    recipe, split = FeaturesRecipe.model_validate(dict(origin.recipe)), origin.split("people")
    names = ("boxes",) if recipe.boxes == "all" else ("boxes_with_id", "boxes")
    for name in names:
        if f"{split}.{name}" in people.counts:
            return recipe.rows_per_box * people.counts[f"{split}.{name}"]
    images = people.counts.get(f"{split}.images")
    return None if images is None else recipe.rows_per_box * PEOPLE_PER_IMAGE * images


def rows_of_detections(origin: WorkItem) -> int | None:
    """Rows of detections: those kept, queries and ground truth."""
    images = _count(origin, "test", "images")
    test = origin.input("test")
    if images is None or test is None:
        return None
    split = origin.split("test")
    boxes = test.counts.get(f"{split}.boxes", PEOPLE_PER_IMAGE * images)
    return int(DETECTED_PER_IMAGE * images + boxes + test.counts.get(f"{split}.queries", 0))


def _count(origin: WorkItem, name: str, what: str) -> int | None:
    """Of the split that a view among the inputs takes."""
    dataset = origin.input(name)
    return None if dataset is None else dataset.counts.get(f"{origin.split(name)}.{what}")


def _detector(origin: WorkItem) -> float | None:
    training = origin.recipe["detector"]["training"]
    if training["steps"] is not None:
        return float(training["steps"] * training["batch_size"] * training["accumulate"])
    total = 0.0
    for name, amount in origin.recipe["amounts"].items():
        images = _count(origin, name, "images")
        if images is None:
            dataset = origin.input(name)
            images = None if dataset is None else dataset.counts.get("images")
        if images is None:
            return None
        total += amount.get("choose") or images * (amount.get("repeat") or 1.0)
    return total * float(training["epochs"])


def _reid(origin: WorkItem) -> float | None:
    recipe, amounts = origin.recipe["reid"], origin.recipe.get("amounts", {})
    stores = origin.inputs("features")
    people = [None if features is None else _count(features, "people", "ids") for features in stores.values()]
    identities = [number for number in people if number is not None]
    if not identities or len(identities) < len(people):
        return None
    drawn = [Amount.model_validate(amounts.get(name, {"repeat": 1.0})) for name in stores]
    steps = -(-sum(per_epoch(drawn, identities)) // recipe["identities_per_batch"])
    rows = recipe["identities_per_batch"] * recipe["shots"] + recipe["unlabelled_per_batch"]
    return float(steps * rows * sum(phase["epochs"] for phase in recipe["phases"]))


def _gallery(origin: WorkItem) -> float | None:
    detections = origin.input("detections")
    rows = None if detections is None else rows_of_detections(detections)
    return None if rows is None else rows * (2.0 if origin.recipe["untrained"] else 1.0)


def _evaluation(origin: WorkItem) -> float | None:
    truth = origin.input("truth")
    if truth is None:
        return None
    queries = truth.counts.get("queries", truth.counts.get("test.ids", 0))
    settings = settings_of(EvaluationRecipe.model_validate(dict(origin.recipe)))
    return float(len(settings) * max(queries, 1))
