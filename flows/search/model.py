"""The model of an index: given as a finished config or an exported folder, and kept in the index."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from flows.config.devices import torch_device
from flows.errors import ConfigError
from flows.search.layout import Settings
from personsearch_core.checksums import CHECKSUMS, write_checksums
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.descriptions import first_problem, read_description, read_model_description
from storage import durable
from storage.digests import digest_json, digest_parts, digest_safetensors
from storage.folders import whole_folder

if TYPE_CHECKING:
    from personsearch_core.search.network import PersonSearchNet


@dataclass(frozen=True)
class GivenModel:
    """A trained model that is loaded or copied only if needed.

    digest: of weights and recipes. dimensions: of an embedding. settings: how it is meant to find people.
    load: by the name of a device. save: into a folder.
    """

    digest: str
    dimensions: int
    settings: Settings
    load: Callable[[str], PersonSearchNet]
    save: Callable[[Path], None]

    def loaded_once(self) -> GivenModel:
        """The same, keeping what it loads."""
        return replace(self, load=cache(self.load))


def given_model(model: Path, overrides: Sequence[str] = (), store: str | None = None) -> GivenModel:
    """The model that a MODEL argument names. Raises ConfigError if it is neither a finished config nor a
    model's folder."""
    return _exported(model) if model.is_dir() else _of_config(model, overrides, store)


def _exported(folder: Path) -> GivenModel:
    from personsearch_core.export import BRANCH, DESCRIPTION, present_files

    def save(target: Path) -> None:
        for name in present_files(folder):
            if not name.endswith((".pt2", ".onnx")):
                shutil.copyfile(folder / name, target / name)
        if (folder / CHECKSUMS).is_file():
            write_checksums(target, present_files(target))

    digest = digest_of_model(folder)
    settings = _settings_of(folder / DESCRIPTION)
    return GivenModel(digest, _dimensions(folder / BRANCH), settings, partial(load_exported, folder), save)


def _settings_of(description: Path) -> Settings:
    """How a model is meant to find people; models of earlier versions do not say it."""
    provenance = read_model_description(description).get("provenance")
    finding = provenance.get("finding", {}) if isinstance(provenance, dict) else {}
    try:
        return Settings.model_validate(finding)
    except ValidationError as error:
        raise ConfigError(f"{description}: provenance.finding: {first_problem(error)}") from error


def _of_config(config: Path, overrides: Sequence[str], store: str | None) -> GivenModel:
    from flows.plan.finished import finished_model
    from flows.stages.detector import TRAINED_BRANCH
    from personsearch_core.models.weights import DETECTOR_DESCRIPTION, DETECTOR_WEIGHTS

    finished = finished_model(config, overrides, store)

    def save(target: Path) -> None:
        from flows.report.model_card import write_model

        write_model(finished, target)

    detector = finished.detector.path
    digest = _digest(
        detector / DETECTOR_WEIGHTS,
        detector / DETECTOR_DESCRIPTION,
        finished.reid.path / TRAINED_BRANCH,
        finished.config.roi.canonical().model_dump(mode="json"),
    )
    dimensions = _dimensions(finished.reid.path / TRAINED_BRANCH)
    return GivenModel(digest, dimensions, Settings(**finished.finding()), finished.load, save)


def load_exported(folder: Path, device: str) -> PersonSearchNet:
    """An exported model, on the device."""
    from personsearch_core.export import load_model

    on = torch_device(device)
    return load_model(folder).to(on)


def digest_of_model(folder: Path) -> str:
    """Digest of an exported model: its weights and recipes, not where it came from.

    Raises ConfigError if the folder holds none, PersonSearchError if it is damaged.
    """
    from personsearch_core.export import BRANCH, DESCRIPTION, require_whole_model
    from personsearch_core.models.weights import DETECTOR_DESCRIPTION, DETECTOR_WEIGHTS

    require_whole_model(folder)
    try:
        roi = read_model_description(folder / DESCRIPTION)["roi"]
        return _digest(folder / DETECTOR_WEIGHTS, folder / DETECTOR_DESCRIPTION, folder / BRANCH, roi)
    except (OSError, KeyError, ValueError) as error:
        missing = not (folder / DESCRIPTION).exists()
        why = f"it has no {DESCRIPTION}" if missing else f"{error}"
        raise ConfigError(
            f"{folder} is not a model: {why}; give a config whose run has finished, or a folder written by "
            "`personsearch export`"
        ) from error


def save_once(model: GivenModel, folder: Path) -> None:
    """Put a model into a folder, whole or not at all, unless it is there and whole."""
    with contextlib.suppress(ConfigError, PersonSearchError):  # what is damaged is replaced
        if folder.is_dir() and digest_of_model(folder) == model.digest:
            return
    durable.make_folder(folder.parent)
    with whole_folder(folder) as partial:
        model.save(partial)


def _dimensions(branch: Path) -> int:
    """Length of the embeddings that a branch gives, from the header of its weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(branch, framework="numpy") as weights:
            return int(weights.get_slice("embedding.weight").get_shape()[0])
    except (SafetensorError, IndexError) as error:
        raise ConfigError(f"{branch} does not hold the weights of a branch: {error}") from error


def _digest(detector: Path, description: Path, branch: Path, roi: object) -> str:
    return digest_parts(
        {
            "detector": digest_safetensors(detector),
            "description": digest_json(read_description(description, "a detector")),
            "branch": digest_safetensors(branch),
            "roi": digest_json(roi),
        }
    )
