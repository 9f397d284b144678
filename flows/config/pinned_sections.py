"""A config's sections `detector` and `reid` where they name a trained model: what stands in for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.config.pins import TRAINED, Pin, Section, find_pin
from flows.config.raw import absolute, is_folder
from flows.errors import ConfigError
from personsearch_core.recipes import RoiRecipe
from storage.errors import StorageError


def pins_of(raw: Mapping[str, Any], store: str, folder: Path) -> dict[Section, Pin]:
    """The pins of a raw config; folders are relative to the config's own.

    Raises ConfigError, which names the field, for a section that has more than `use`, for a model that is not
    there or damaged, and for a branch that does not fit the detector.
    """
    pins = {
        name: _pin(name, raw[name], store, folder) for name in TRAINED if _given(raw.get(name)) is not None
    }
    _require_same_detector(pins)
    return pins


def detector_fields(pin: Pin, *, with_branch: bool) -> dict[str, Any]:
    """The section `detector` as the model's recipe has it; `with_branch` keeps a jointly trained branch."""
    joint = pin.recipe.get("joint") if with_branch else None
    fields = {**pin.recipe["detector"], "use": pin.given, "pin": pin}
    if joint is not None:
        own = {name: value for name, value in joint.items() if name != "roi"}
        fields["joint"] = {**own, "datasets": pin.learnt()}
    return fields


def reid_fields(pin: Pin) -> dict[str, Any]:
    """The section `reid` as the model's recipe has it."""
    return {**pin.recipe["reid"], "use": pin.given, "pin": pin}


def pinned_roi(raw: Mapping[str, Any], pins: Mapping[Section, Pin]) -> Any:
    """The section `roi`: that of the pinned branch, which the config may leave out or repeat.

    Raises ConfigError if the config has another one.
    """
    given = raw.get("roi")
    branch = pins.get("reid") or (pins.get("detector") if raw.get("reid") is None else None)
    if branch is None or branch.roi is None:
        return given
    try:
        known = RoiRecipe.model_validate(branch.roi).canonical()
        same = not given or RoiRecipe.model_validate(given).canonical() == known
    except ValidationError:
        return given  # the config's own check says what is wrong with it
    if not same:
        fields = ", ".join(
            f"{name} {value}" for name, value in known.model_dump(exclude_defaults=True).items()
        )
        raise ConfigError(
            f"roi: the branch of {branch.artifact} was trained on other ROIs ({fields}); leave roi out to "
            "take those"
        )
    return known.model_dump()


def _given(section: Any) -> Any:
    return section.get("use") if isinstance(section, Mapping) else None


def _pin(name: Section, section: Mapping[str, Any], store: str, folder: Path) -> Pin:
    given = section["use"]
    others = [field for field in section if field != "use" and section[field] is not None]
    if others:
        raise ConfigError(
            f"{name}: `use` takes a trained model unchanged, so it stands alone: remove {', '.join(others)}, "
            f"or remove use to train (on the command line: --set '{name}={{use: {given}}}')"
        )
    if not isinstance(given, str) or not given:
        raise ConfigError(
            f"{name}.use: write a tag, an artifact {name}/KEY, or the folder of an exported model"
        )
    if given.partition("/")[0] in TRAINED and is_folder(given) and not Path(absolute(given, folder)).exists():
        raise ConfigError(
            f"{name}.use: {given} is neither a folder nor an artifact: write at least four characters of "
            "its key (digits and a to f; see `store ls`)"
        )
    from storage.opening import open_store  # loads fsspec

    try:
        return find_pin(name, absolute(given, folder) if is_folder(given) else given, open_store(store))
    except (ConfigError, StorageError) as error:
        raise ConfigError(f"{name}.use: {error}") from error


def _require_same_detector(pins: Mapping[Section, Pin]) -> None:
    """A branch reads the shared layers of the detector that it was trained with, and of no other."""
    branch, detector = pins.get("reid"), pins.get("detector")
    if branch is None or branch.detector_digest is None:
        return
    if detector is None:
        raise ConfigError(
            f"reid.use: {branch.artifact} reads the layers of the detector that it was trained with, so pin "
            f"that, too: detector: {{use: {branch.given}}}"
        )
    if detector.content_digest != branch.detector_digest:
        raise ConfigError(
            f"reid.use: {branch.artifact} was trained with another detector than {detector.artifact}, which "
            f"detector.use names: write {branch.given} in both places"
        )
