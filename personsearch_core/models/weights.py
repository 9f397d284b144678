"""Models with their weights: initial ones, and those that a finished training wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, Json, ValidationError
from safetensors import safe_open
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from personsearch_core.errors import PersonSearchError
from personsearch_core.models.branch import Branch
from personsearch_core.models.descriptions import first_problem, part, read_description
from personsearch_core.models.detector import Detector, detector_without_weights
from personsearch_core.models.states import (
    BACKBONE_PREFIX,
    State,
    current_names,
    cut_to_person,
    imagenet_backbone,
    load_state,
    load_weights,
    save_weights,
    torchvision_weights,
)
from personsearch_core.recipes import SHARED_BLOCKS, BranchModel, DetectionLoss, DetectorModel, Variant

DETECTOR_WEIGHTS = "detector.safetensors"
DETECTOR_DESCRIPTION = "detector.json"

_OF_TRAINING = {"initial_weights", "trainable_layers"}
"""Fields of a detector's model that its output does not depend on, given its weights."""


class _SavedBranch(BaseModel):
    """What the header of a branch's weights says; models of earlier versions have no `norm_epsilon`."""

    variant: Variant
    detector_model: Json[DetectorModel]
    branch: Json[BranchModel]
    norm_epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    channels: Annotated[int, Field(gt=0, le=1 << 16)] | None = None


def load_initial_weights(detector: Detector, source: str) -> None:
    """Fill a detector with initial weights, in place.

    COCO's 91 classes are cut to the `person` row. A ResNet's weights fill the backbone and leave pyramid and
    heads as they were drawn.

    Parameters
    ----------
    detector
        To be filled.
    source
        `coco`, `imagenet` (torchvision's, downloaded if needed), or a .safetensors or .pth file of a
        detector's or a ResNet's weights.

    Raises
    ------
    PersonSearchError
        If the weights cannot be read or do not fit.
    """
    model = detector.model
    if source == "coco":
        state: State = torchvision_weights(RetinaNet_ResNet50_FPN_Weights.COCO_V1)
    elif source == "imagenet":
        state = imagenet_backbone(model.backbone)
    else:
        state = load_weights(source)
    if any(name.startswith(BACKBONE_PREFIX) for name in state):
        named = cut_to_person(current_names(state), detector.anchor_grid.per_cell, source)
        load_state(detector, named, source)
    else:
        resnet = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
        load_state(detector.backbone.body, resnet, source)


def save_detector(directory: Path, detector: Detector) -> None:
    """Write `detector.safetensors`, and `detector.json` with the model and loss it was built from.

    Parameters
    ----------
    directory
        An existing folder.
    detector
        On any device.
    """
    save_weights(directory / DETECTOR_WEIGHTS, detector.state_dict())
    description = {
        "model": detector.model.model_dump(mode="json"),
        "loss": detector.loss.model_dump(mode="json"),
    }
    (directory / DETECTOR_DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load_detector(directory: str | Path) -> Detector:
    """Load the detector that `save_detector` wrote.

    Parameters
    ----------
    directory
        The folder.

    Returns
    -------
    Detector
        On the CPU, in evaluation mode.

    Raises
    ------
    PersonSearchError
        If a file is missing or damaged, or the weights do not fit the model.

    Examples
    --------
    >>> import tempfile
    >>> from personsearch_core import build_detector
    >>> model = DetectorModel(
    ...     backbone="resnet18", initial_weights=None, norm="group", fpn_channels=8, head_convolutions=1
    ... )
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_detector(folder, build_detector(model))
    >>> load_detector(folder).model == model
    True
    """
    path = Path(directory) / DETECTOR_DESCRIPTION
    description, refusal = read_description(path, "a detector"), f"{path} does not describe a detector"
    model = part(DetectorModel, description, "model", refusal)
    loss = part(DetectionLoss, description, "loss", refusal)
    detector = detector_without_weights(model, loss)
    weights = Path(directory) / DETECTOR_WEIGHTS
    load_state(detector, load_weights(weights), str(weights))
    return detector.eval()


def weights_digest(detector: Detector, variant: str | None = None) -> str:
    """SHA-256 over what decides a detector's output: the layers' weights, and how images reach them.

    Of the blocks that a variant shares alone, if one is given: detectors that were trained with these blocks
    frozen have equal digests.
    """
    state, fields = detector.state_dict(), set(DetectorModel.model_fields) - _OF_TRAINING
    if variant is not None:
        blocks = ("conv1", "bn1", *(f"layer{number}" for number in range(1, SHARED_BLOCKS[variant])))
        body = detector.backbone.body.state_dict()
        state = {name: tensor for name, tensor in body.items() if name.partition(".")[0] in blocks}
        fields = {"backbone", "image_width", "image_height", "resize", "decode", "norm"}
    model = detector.model.model_dump(mode="json", include=fields)
    total = hashlib.sha256(json.dumps([model, detector.model.backbone_epsilon], sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).numpy().data)
    return total.hexdigest()


def save_branch(path: Path, branch: Branch) -> None:
    """Write a branch as one safetensors file; its metadata say how to build it.

    Parameters
    ----------
    path
        The file.
    branch
        On any device.
    """
    description = {
        "variant": branch.variant,
        "detector_model": branch.detector_model.model_dump_json(),
        "branch": branch.branch.model_dump_json(),
        "norm_epsilon": branch.norm_epsilon,
        **({} if branch.channels is None else {"channels": branch.channels}),
    }
    # One entry: the order of several is not fixed, and equal branches should give equal bytes.
    save_weights(path, branch.state_dict(), {"branch": json.dumps(description)})


def load_branch(path: str | Path) -> Branch:
    """Load the branch that `save_branch` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Branch
        On the CPU, in evaluation mode.

    Raises
    ------
    PersonSearchError
        If the file is missing or damaged, or does not hold a branch.

    Examples
    --------
    >>> import tempfile
    >>> from personsearch_core import build_branch
    >>> detector = DetectorModel(backbone="resnet18", initial_weights=None, norm="group")
    >>> recipe = BranchModel(embedding_dim=8, initial_weights="random")
    >>> file = Path(tempfile.mkdtemp()) / "branch.safetensors"
    >>> save_branch(file, build_branch("j4", detector, recipe))
    >>> load_branch(file).variant
    'j4'
    """
    state = load_weights(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    try:
        saved = _SavedBranch.model_validate_json(header.get("branch", "null"))
    except ValidationError as error:
        problem = first_problem(error)
        raise PersonSearchError(f"{path} does not say which branch it holds: {problem}") from error
    epsilon = saved.norm_epsilon
    if epsilon is None:
        epsilon = saved.branch.earlier_epsilon(saved.detector_model)
    recipe = saved.branch.model_copy(update={"norm_epsilon": epsilon})
    branch = Branch(saved.variant, saved.detector_model, recipe, saved.channels)
    load_state(branch, state, str(path))
    return branch.eval()
