"""Reading a config file: overrides, old spellings, pinned models, paths, and what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_catalog.suggestions import did_you_mean
from flows.config.foreign import find_features, refuse_others
from flows.config.models import Config
from flows.config.pinned_sections import detector_fields, pinned_roi, pins_of, reid_fields
from flows.config.problems import explain_problems
from flows.config.raw import (
    PUBLISHED_WEIGHTS,
    STORE_VARIABLE,
    ExpandedPath,
    absolute,
    of_results,
    read_raw,
    resolved_store,
)
from flows.config.sections import (
    FeaturesSection,
    ForeignSection,
    NoDetector,
    PinnedDetector,
    PinnedReid,
)
from flows.config.truth_values import truth_values_for_numbers
from flows.errors import ConfigError, missing
from personsearch_core.recipes import RoiRecipe

log = logging.getLogger(__name__)

HINTS = {
    "store": f"this field is missing; add it, pass --store, or set ${STORE_VARIABLE}",
    **{f"reid.{name}": f"roi.{name} is given, too; keep only that" for name in RoiRecipe.model_fields},
}
"""What to do about a field that is missing or unknown, where that is more than to write or to delete it."""

LISTING = "personsearch fields"


def load_config(path: Path, overrides: Iterable[str] = (), *, store: str | None = None) -> Config:
    """Read a YAML config, apply `a.b=value` overrides, and resolve its paths.

    Raises ConfigError with one message: which file, which field, what to do.
    """
    overrides = tuple(_in_roi(override) for override in overrides)
    raw = with_pins(_with_foreign(_with_roi(read_raw(path, overrides, store), path, overrides), path), path)
    if "members" in raw and "tables" in raw:
        raise ConfigError(f"{path} is a study, not a config; use: personsearch study run {path}")
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explained(error, path, overrides)) from error
    for problem in truth_values_for_numbers(raw, Config):
        changed = [each for each in overrides if each.partition("=")[0] == problem.field]
        raise ConfigError(problem.blamed_on(str(path), changed))
    for name, source in config.datasets.items():
        root = raw["datasets"][name]["root"]
        source._unset = root.unset if isinstance(root, ExpandedPath) else ()
    config._written_as = " ".join([path.name, *(f"--set {each}" for each in of_results(overrides))])
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


def _with_foreign(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """A raw config with the features that it takes from elsewhere, and no detector."""
    section = raw.get("features")
    if not isinstance(section, dict) or section.get("use") is None:
        return raw
    try:
        refuse_others(raw)
        foreign = find_features(section["use"], path.parent.absolute())
        fields = {name: value for name, value in section.items() if value is not None}
        taken = ForeignSection.model_validate({**fields, "dtype": foreign.dtype, "foreign": foreign})
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain_problems(error, FeaturesSection)[0]}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return {**raw, "features": taken, "detector": NoDetector()}


def with_pins(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """A raw config with the trained models that it names in the place of their sections.

    `path` is the config's file. Raises ConfigError for a model that is not there or does not fit.
    """
    if not isinstance(raw.get("store"), str):
        return raw
    folder = path.parent.absolute()
    try:
        pins = pins_of(raw, resolved_store(raw["store"], folder, f"{path}: store"), folder)
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
    hints = HINTS | _misspelled_datasets(path, overrides)
    own = set()
    if overrides:
        try:
            Config.model_validate(_with_roi(read_raw(path, (), None), path, ()))
        except ValidationError as of_file:
            own = {str(problem) for problem in explain_problems(of_file, Config, HINTS, listing=LISTING)}
    return "; ".join(
        problem.blamed_on(str(path), () if str(problem) in own else overrides)
        for problem in explain_problems(error, Config, hints, listing=LISTING)
    )


def _misspelled_datasets(path: Path, overrides: tuple[str, ...]) -> dict[str, str]:
    """What to say of a dataset that only a `--set` names, where the file has one with a near name."""
    datasets = read_raw(path, (), None).get("datasets") if overrides else None
    if not isinstance(datasets, dict):
        return {}
    hints = {}
    for override in overrides:
        section, _, rest = override.partition("=")[0].partition(".")
        name = rest.partition(".")[0]
        near = did_you_mean(name, datasets) if section == "datasets" and name not in datasets else ""
        if near:
            hints[f"datasets.{name}.adapter"] = hints[f"datasets.{name}.root"] = (
                f"there is no dataset {name!r}{near}"
            )
    return hints


def store_of(path: Path, overrides: Iterable[str] = (), *, store: str | None = None) -> str:
    """The store of a config whose other fields may be wrong. Raises ConfigError when it cannot be told."""
    found = read_raw(path, overrides, store).get("store")
    if not isinstance(found, str):
        raise ConfigError(f"{path}: store: {HINTS['store']}")
    return resolved_store(found, path.parent.absolute(), f"{path}: store")


def _resolve_paths(config: Config, folder: Path) -> Config:
    sources = {
        name: source.model_copy(update={"root": Path(absolute(source.root, folder))})
        for name, source in config.datasets.items()
    }
    resolved: dict[str, Any] = {"datasets": sources, "store": resolved_store(config.store, folder, "store")}
    weights = config.detector.model.initial_weights
    if config.detector.use is None and weights is not None and weights not in PUBLISHED_WEIGHTS:
        file = absolute(weights, folder)
        if not Path(file).is_file():
            known = ", ".join(PUBLISHED_WEIGHTS)
            raise ConfigError(
                f"detector.model.initial_weights: {weights!r} is not one of {known}, and "
                f"{missing(file, 'file')}"
            )
        model = config.detector.model.model_copy(update={"initial_weights": file})
        resolved["detector"] = config.detector.model_copy(update={"model": model})
    return config.model_copy(update=resolved)
