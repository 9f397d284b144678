"""The stage of a pinned model: its artifact is there, or is imported from the folder of an exported model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from flows.config.exported import BRANCH, DETECTOR, DETECTOR_DESCRIPTION, ExportedModel
from flows.config.pins import Pin
from flows.config.trained_on import TRAINED_ON
from flows.errors import StageError
from flows.stages.base import ArtifactInput, InputRef, Inputs, Made, Maker, Stage, StageContext
from flows.stages.detector import TRAINED_BRANCH
from personsearch_core.recipes import Recipe
from storage.digests import digest_safetensors


class ImportInputs(Inputs):
    detector: ArtifactInput | None = None
    """Of a branch: the detector whose layers it shares."""


class Options(Recipe):
    folder: Path
    digest: str
    """Of the part's weights when the run was planned."""


class ImportRecipe(BaseModel):
    """What the import of either part is known by; see `flows.config.exported`."""

    model_config = ConfigDict(extra="allow", frozen=True)


def stage(name: str, pin: Pin) -> Stage:
    """In the place of the stage `detector` or `reid`; its key is that of the pinned artifact."""
    fixed = dict(pin.identity.inputs)
    inputs = {}
    if pin.folder is not None and name == "reid" and fixed.pop("detector", None) is not None:
        inputs["detector"] = InputRef("detector")
    options = {}
    if pin.folder is not None:
        options = Options(folder=pin.folder, digest=fixed["exported"]).model_dump(mode="json")
    return Stage(
        name=name,
        kind=pin.identity.kind,
        version=pin.identity.version,
        recipe=pin.recipe,
        maker=f"flows.stages.pinned:{_MAKERS[name]}",
        inputs=inputs,
        fixed_inputs=fixed,
        options=options,
        pin=pin,
    )


_MAKERS = {"detector": "DETECTOR_MAKER", "reid": "BRANCH_MAKER"}

ImportContext = StageContext[ImportRecipe, ImportInputs, Options]


def import_detector(context: ImportContext) -> Made:
    """Copy the weights of an exported detector, after loading them once; safetensors only."""
    from personsearch_core.models.weights import load_detector

    model = _copied(context, {DETECTOR: DETECTOR, DETECTOR_DESCRIPTION: DETECTOR_DESCRIPTION})
    load_detector(context.work)
    _, digest = model.detector()
    return Made(digest, {}, made_by=_origin(model, "detector"))


def import_branch(context: ImportContext) -> Made:
    """Likewise the branch, without the one from before training, which an export leaves out."""
    from personsearch_core.models.weights import load_branch

    model = _copied(context, {BRANCH: TRAINED_BRANCH})
    load_branch(context.work / TRAINED_BRANCH)
    _, digest = model.branch()
    return Made(digest, {}, made_by=_origin(model, "reid") | {"roi": model.roi})


DETECTOR_MAKER = Maker(ImportRecipe, ImportInputs, Options, import_detector)
BRANCH_MAKER = Maker(ImportRecipe, ImportInputs, Options, import_branch)


def _copied(context: ImportContext, files: Mapping[str, str]) -> ExportedModel:
    """The model in the folder, with some of its files copied under new names; weights come first."""
    options = context.options
    model = ExportedModel.read(options.folder)
    for source, target in files.items():
        shutil.copyfile(options.folder / source, context.work / target)
    if digest_safetensors(context.work / next(iter(files.values()))) != options.digest:
        raise StageError(
            f"{options.folder} has changed since the run was planned; run the same command again"
        )
    return model


def _origin(model: ExportedModel, part: str) -> dict[str, Any]:
    """What the export says of the part's origin."""
    of = model.origin[part]
    origin: dict[str, Any] = {"exported": {name: of.get(name) for name in ("key", "created", "recipe")}}
    return origin | ({TRAINED_ON: of[TRAINED_ON]} if TRAINED_ON in of else {})
