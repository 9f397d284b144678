"""The folder of an exported model, read without torch: what its parts are, and their digests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.config.raw import PUBLISHED_WEIGHTS
from flows.config.trained_on import TRAINED_ON, TrainedOn
from flows.errors import ConfigError, missing
from personsearch_core.checksums import problems
from personsearch_core.models.descriptions import described, read_description, read_model_description
from personsearch_core.recipes import BranchModel, DetectionLoss, DetectorModel
from storage.digests import digest_parts, digest_safetensors
from storage.errors import StorageError
from storage.manifest import Identity

MODEL, DETECTOR, BRANCH = "model.json", "detector.safetensors", "branch.safetensors"
DETECTOR_DESCRIPTION = "detector.json"
VERSION = 1
"""Of the stages that import a model."""


@dataclass(frozen=True)
class ExportedModel:
    """A folder that `personsearch export` wrote."""

    folder: Path
    roi: dict[str, Any]
    origin: dict[str, dict[str, Any]]
    """What the export says of the detector and of the branch, `reid`: key, date, recipe."""
    trained_on: dict[str, tuple[TrainedOn, ...]]
    """Likewise; empty in exports of earlier versions."""
    model: DetectorModel
    loss: DetectionLoss
    variant: str
    branch_model: BranchModel
    detector_digest: str
    """As the stage `detector` computes it: equal weights keep everything downstream."""
    branch_digest: str

    @classmethod
    def read(cls, folder: Path) -> ExportedModel:
        """Raises ConfigError if the folder does not hold a whole model, or a damaged one."""
        if not folder.is_dir():
            raise ConfigError(f"{missing(folder)}; name a folder that `personsearch export` wrote")
        parts = (MODEL, DETECTOR, DETECTOR_DESCRIPTION, BRANCH)
        if absent := [name for name in parts if not (folder / name).is_file()]:
            raise ConfigError(
                f"{folder} is not a model: it has no {absent[0]}; name a folder that `personsearch export` "
                "wrote"
            )
        try:
            found = cls._read(folder)
            if wrong := problems(folder, parts):
                raise StorageError(wrong[0])
            return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"the model in {folder} is damaged: {said}; export it again") from error

    @classmethod
    def _read(cls, folder: Path) -> ExportedModel:
        description = read_model_description(folder / MODEL)
        provenance = description.get("provenance") or {}
        origin = {part: dict(provenance.get(part) or {}) for part in ("detector", "reid")}
        network = read_description(folder / DETECTOR_DESCRIPTION, "a detector")
        header = _metadata(folder / BRANCH)
        return cls(
            folder=folder,
            roi=dict(description["roi"]),
            origin=origin,
            trained_on={
                part: tuple(TrainedOn.model_validate(each) for each in of.get(TRAINED_ON, ()))
                for part, of in origin.items()
            },
            model=_without_path(DetectorModel.model_validate(network["model"])),
            loss=DetectionLoss.model_validate(network["loss"]),
            variant=header["variant"],
            branch_model=BranchModel.model_validate_json(header["branch"]),
            detector_digest=digest_safetensors(folder / DETECTOR),
            branch_digest=digest_safetensors(folder / BRANCH),
        )

    def detector(self) -> tuple[Identity, str]:
        """What the imported detector is known by (its weights and its network), and its content digest."""
        recipe = {"model": self.model.model_dump(mode="json"), "loss": self.loss.model_dump(mode="json")}
        identity = Identity(
            kind="detector",
            version=VERSION,
            recipe={"detector": recipe},
            inputs={"exported": self.detector_digest},
        )
        return identity, self.detector_digest

    def branch(self) -> tuple[Identity, str]:
        """Likewise of the branch; one that shares layers names the detector that it reads."""
        recipe = {"reid": {"branch": self.branch_model.model_dump(mode="json")}, "variant": self.variant}
        inputs = {"exported": self.branch_digest}
        if self.variant != "disj":
            inputs["detector"] = self.detector_digest
        identity = Identity(kind="reid", version=VERSION, recipe=recipe, inputs=inputs)
        return identity, digest_parts({BRANCH: self.branch_digest})


def _without_path(model: DetectorModel) -> DetectorModel:
    """The network with `file` for a file of initial weights, as in the recipe of a training."""
    weights = model.initial_weights
    if weights is None or weights in PUBLISHED_WEIGHTS:
        return model
    return model.model_copy(update={"initial_weights": "file"})


def _metadata(branch: Path) -> dict[str, Any]:
    """What a branch's file says of itself in its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(branch, framework="numpy") as file:
            return described((file.metadata() or {})["branch"], f"{branch.name} does not say what it holds")
    except SafetensorError as error:
        raise StorageError(f"{branch.name} is not safetensors: {error}") from error
