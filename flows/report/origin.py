"""The origin of a report: the artifacts behind it, their cost, and their non-default recipe fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.report.content import Origin, StageOrigin
from personsearch_core.recipes import (
    DetectionsRecipe,
    DetectorRecipe,
    EvaluationRecipe,
    FeaturesRecipe,
    GalleryRecipe,
    JointOptions,
    Recipe,
    ReidRecipe,
    RoiRecipe,
)
from storage.lineage import manifests_behind
from storage.manifest import Manifest
from storage.store import Artifact, Store

_RECIPES: Mapping[str, type[Recipe]] = {
    "detector": DetectorRecipe,
    "features": FeaturesRecipe,
    "reid": ReidRecipe,
    "detections": DetectionsRecipe,
    "gallery": GalleryRecipe,
    "evaluation": EvaluationRecipe,
}
_OF_A_TEST = ("detections", "gallery", "evaluation")


@dataclass(frozen=True)
class Lineage:
    """Manifests by label of some artifacts and all their sources; sources come first."""

    manifests: Mapping[str, Manifest]
    gone: Sequence[str]


def trace(artifacts: Mapping[str, Artifact], store: Store) -> Lineage:
    """The lineage of a stage's inputs, whose names end in `:test` if there are several tests.

    The sources of the inputs need not be on this machine.
    Raises StorageError for a damaged manifest.
    """
    stores = {each.name: name for name, each in artifacts.items() if each.kind == "features"}
    manifests: dict[str, Manifest] = {}
    gone, seen = [], set[str]()
    for name, artifact in artifacts.items():
        _, colon, test = name.partition(":")
        for source, manifest in manifests_behind(store, artifact.name, seen):
            if manifest is None:
                gone.append(source)
            else:
                manifests[stores.get(source) or _label(manifest, colon + test)] = manifest
    return Lineage(manifests, gone)


def describe_origin(lineage: Lineage, config: str) -> Origin:
    """Keys, recipes, times and machine of every artifact behind the report; `config` is what asked for it."""
    evaluated = [each.created for each in lineage.manifests.values() if each.kind == "evaluation"]
    stages, start = [], 0.0
    for label, manifest in lineage.manifests.items():
        stages.append(StageOrigin(label, manifest, list(departures(manifest)), start))
        start += manifest.seconds
    return Origin(
        stages=stages,
        gone=lineage.gone,
        machine=_machine(lineage),
        config=config,
        evaluated=max(evaluated, default=""),
    )


def departures(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Recipe fields of an artifact that differ from the defaults, as (dotted name, value)."""
    recipe, defaults = manifest.identity.recipe, {}
    if "joint" in recipe:
        joint = JointOptions().model_dump(mode="json") | {
            "roi": _default_roi(recipe["joint"]["roi"]["variant"])
        }
        yield from _changed("joint", joint, recipe["joint"])
    if manifest.kind in _RECIPES:
        # Detector and re-ID nest their recipe next to the other parts of their key.
        recipe = recipe.get(manifest.kind, recipe)
        defaults = _RECIPES[manifest.kind]().model_dump(mode="json")
    if "roi" in recipe:
        defaults = defaults | {"roi": _default_roi(recipe["roi"]["variant"])}
    yield from _changed("", defaults, recipe)


def _default_roi(variant: str) -> dict[str, Any]:
    """The defaults with an explicit size, as in keys; a variant other than J3 still counts as a departure."""
    default = RoiRecipe()
    height, width = RoiRecipe.model_validate({"variant": variant}).roi_size
    return default.model_dump(mode="json") | {"roi_height": height, "roi_width": width}


def _changed(prefix: str, default: Any, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name in value:
            before = default.get(name) if isinstance(default, dict) else None
            yield from _changed(f"{prefix}.{name}".lstrip("."), before, value[name])
    elif value != default:
        yield prefix, "none" if value is None else str(value)


def _label(manifest: Manifest, suffix: str) -> str:
    if manifest.kind == "ingest":
        return f"ingest:{manifest.identity.recipe['dataset']}"
    return manifest.kind + (suffix if manifest.kind in _OF_A_TEST else "")


def _machine(lineage: Lineage) -> list[tuple[str, str]]:
    """Provenance facts of the manifests with all their values: several if stages differ."""
    facts: dict[str, list[str]] = {}
    for manifest in lineage.manifests.values():
        made_by = manifest.made_by
        shown = {name: made_by.get(name) for name in ("source", "python", "machine", "cpus", "threads")}
        for name, value in [*shown.items(), *sorted(made_by.get("libraries", {}).items())]:
            values = facts.setdefault(name, [])
            if value is not None and str(value) not in values:
                values.append(str(value))
    return [(name, ", ".join(values)) for name, values in facts.items() if values]
