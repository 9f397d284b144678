"""How a result came about: the artifacts behind its evaluations, and the recipes as a config writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_catalog.snapshot import Snapshot
from data_catalog.views import Use
from flows.compare.sides import Side, view_of
from flows.config.trained_on import TRAINED_ON, VIEWS
from flows.plan.views import ViewSpec, view_digest
from storage.lineage import manifests_behind
from storage.manifest import Manifest
from storage.store import Store

_OF_A_DATASET = {"features": "people", "detections": "test", "gallery": "", "evaluation": "truth"}
"""Kinds of stages that there may be several of, and the view that tells them apart."""
TRAIN, VALIDATION, REID = "detector.train", "detector.validation", "reid.train"
_USES: Mapping[str, tuple[Use, ...]] = {
    "detector": ("boxes", "people"),
    "features": ("people",),
    "detections": ("test",),
}
_PLACES = {"train": TRAIN, "validation": VALIDATION}


@dataclass(frozen=True)
class TrainedView:
    """A view that is trained on: where a config names it, of which dataset, and its other fields."""

    place: str
    dataset: str
    fields: Mapping[str, Any]
    joint: bool = False
    """Whether a joint training learns its identities."""


@dataclass
class History:
    """The manifests behind the evaluations of a side, by stage name; `gone` are no longer in the store.

    `snapshots` are by dataset. A model may have been trained on an earlier one than that of today's test:
    then `then` has it.
    """

    side: Side
    store: Store
    stages: dict[str, Manifest] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)
    then: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, side: Side, store: Store) -> History:
        found, seen = cls(side, store), set[str]()
        for test, evaluation in side.evaluations.items():
            # What it was tested on comes first: the snapshot of today.
            for name, manifest in manifests_behind(store, evaluation.name, seen, ("truth", "test")):
                if manifest is None:
                    found.gone.append(name)
                else:
                    found._add(manifest, test)
        return found

    @property
    def is_retrained(self) -> bool:
        """Whether the models were trained on the snapshots of today, and here."""
        imported = any(TRAINED_ON in each.made_by for each in self.stages.values())
        is_known = all(entry.fields["split"] is not None for entry in self.entries())
        return not self.then and not imported and not self.gone and is_known

    def settings(self) -> dict[str, Any]:
        """All recipes, in the sections and fields of a config; views that are trained on are `entries`."""
        found: dict[str, Any] = {}
        for name, manifest in self.stages.items():
            recipe = manifest.identity.recipe
            if manifest.kind == "detector":
                found["detector"] = _detector(manifest)
                found |= {"roi": recipe["joint"]["roi"]} if recipe.get("joint") else {}
            elif manifest.kind == "reid":
                found["reid"] = dict(recipe["reid"])
            elif manifest.kind in ("features", "detections"):
                left_out = ("roi",) if manifest.kind == "features" else ("roi", "dtype")
                found[manifest.kind] = {k: v for k, v in recipe.items() if k not in left_out}
                found["roi"] = recipe["roi"]
            elif manifest.kind == "gallery":
                found["gallery"] = dict(recipe)
            elif manifest.kind == "evaluation":
                dataset = name.partition(":")[2]
                test = self._test(dataset, manifest)
                found.setdefault("evaluation", {})[dataset] = {**recipe, "test": test}
        for each in self.stages.values():
            if each.kind == "detections" and "features" not in found:
                found["features"] = {"dtype": each.identity.recipe["dtype"]}
        return found

    def entries(self) -> list[TrainedView]:
        """The views that the models were trained on, in the order of the config."""
        found: list[TrainedView] = []
        for manifest in self.stages.values():
            if manifest.kind == "detector":
                found += self._of_detector(manifest)
            elif manifest.kind == "features":
                found.append(TrainedView(REID, *self._view(manifest, "people")))
        branch = self.stages.get("reid")
        return found if branch is None else [self._with_amount(each, branch) for each in found]

    def _add(self, manifest: Manifest, test: str) -> None:
        if manifest.kind == "ingest":
            dataset = str(manifest.identity.recipe["dataset"])
            place = self.snapshots if dataset not in self.snapshots else self.then
            place[dataset] = manifest.name
            self.stages[f"ingest:{dataset}" + (" of then" if place is self.then else "")] = manifest
        else:
            self.stages[self._label(manifest, test)] = manifest

    def _label(self, manifest: Manifest, test: str) -> str:
        view = _OF_A_DATASET.get(manifest.kind)
        if view is None:
            return manifest.kind
        return f"{manifest.kind}:{view_of(manifest, view, self.store)[0] if view == 'people' else test}"

    def _test(self, name: str, manifest: Manifest) -> dict[str, Any]:
        dataset, fields = self._view(manifest, "truth")
        detections = self.stages.get(f"detections:{name}")
        if fields["split"] is None and detections is not None:  # of the same view
            _, fields = self._view(detections, "test")
        return {"dataset": dataset, **fields}

    def _view(self, manifest: Manifest, name: str) -> tuple[str, dict[str, Any]]:
        dataset, split = view_of(manifest, name, self.store)
        if split is None and name != "truth":
            split = self._split_by_digest(manifest, name)
        recorded = manifest.made_by.get(VIEWS, {}).get(name, {})
        height = {"min_height": recorded["min_height"]} if "min_height" in recorded else {}
        return dataset, {"split": split, **height}

    def _split_by_digest(self, manifest: Manifest, name: str) -> str | None:
        """The split that an artifact of an early version took: that whose digest is among its inputs."""
        snapshot = self.store.named(manifest.sources.get(name, ""))
        if snapshot is None:
            return None
        images = Snapshot(self.store.here(snapshot).path).table("images", ["split"])
        views = (
            ViewSpec("", split, use)
            for split in sorted(images["split"].unique().to_pylist())
            for use in _USES[manifest.kind]
        )
        digest = manifest.identity.inputs[name]
        return next((view.split for view in views if view_digest(snapshot, view, self.store) == digest), None)

    def _of_detector(self, manifest: Manifest) -> Iterator[TrainedView]:
        recipe = manifest.identity.recipe
        for name in sorted(manifest.sources, key=_number):
            place = _PLACES.get(name.rstrip("0123456789"))
            if place is not None:
                dataset, fields = self._view(manifest, name)
                amount = recipe.get("amounts", {}).get(name, {})
                yield TrainedView(place, dataset, {**fields, **amount}, name in recipe.get("identities", ()))

    def _with_amount(self, entry: TrainedView, branch: Manifest) -> TrainedView:
        """A view of `reid.train` with how much an epoch takes of it."""
        amounts = branch.identity.recipe.get("amounts", {})
        for name, source in branch.sources.items():
            features = self.stages.get(f"features:{entry.dataset}")
            if entry.place == REID and features is not None and source == f"features/{features.key}":
                return TrainedView(REID, entry.dataset, {**entry.fields, **amounts.get(name, {})})
        return entry


def _detector(manifest: Manifest) -> dict[str, Any]:
    recipe = manifest.identity.recipe
    found = dict(recipe["detector"])
    joint = recipe.get("joint")
    if joint:
        found["joint"] = {name: value for name, value in joint.items() if name != "roi"}
    weights = manifest.identity.inputs.get("initial_weights")
    if weights is not None:
        found["model"] = {**found["model"], "initial_weights": f"file with SHA-256 {weights[:12]}"}
    return found


def _number(name: str) -> tuple[str, int]:
    words = name.rstrip("0123456789")
    return words, int(name[len(words) :] or 0)
