"""State dicts: files, torchvision's enums, and adapting their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, ResNet34_Weights, ResNet50_Weights, WeightsEnum
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from personsearch_core.errors import PersonSearchError

State = Mapping[str, Tensor]

BACKBONE_PREFIX = "backbone.body."
IMAGENET_WEIGHTS: dict[str, WeightsEnum] = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": ResNet50_Weights.IMAGENET1K_V1,
}
COCO_CLASSES = 91
COCO_PERSON = 1
"""Index of `person` among torchvision's COCO categories; 0 is the background."""


def save_weights(path: Path, state: State, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as safetensors, on the CPU and contiguous."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # `save_file` makes the file readable by its owner only; other files follow the umask.
    path.write_bytes(save(plain, metadata=dict(metadata or {})))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file or a .pth of plain tensors (nothing is unpickled).

    Of a checkpoint of torchvision's reference scripts ({"model": state, ...}) the model is read.
    """
    path = Path(path)
    if not path.is_file():
        raise PersonSearchError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes torch raise nearly anything
        raise PersonSearchError(f"weights file {path} cannot be read: {_in_short(error)}") from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise PersonSearchError(f"weights file {path} does not hold a state dict of tensors")
    return state


def load_state(module: nn.Module, state: State, origin: str) -> None:
    """Load every parameter and statistic; PersonSearchError names what does not fit, or is not a number.

    Only `num_batches_tracked` may be missing or left over: frozen norm layers have none.
    """
    counter = "num_batches_tracked"
    wanted = module.state_dict()
    given = {name: tensor for name, tensor in state.items() if not name.endswith(counter)}
    given.update({name: state.get(name, tensor) for name, tensor in wanted.items() if name.endswith(counter)})
    try:
        module.load_state_dict(given)
    except RuntimeError as error:
        raise PersonSearchError(
            f"weights of {origin} do not fit this model (backbone, fpn_channels, head_convolutions, norm and "
            f"anchors must be those that they were trained with): {_in_short(error)}"
        ) from error
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float64)):
            raise PersonSearchError(
                f"weights of {origin} are damaged: {name} holds numbers that are not finite; train or export "
                "the model again"
            )


def _in_short(error: Exception) -> str:
    """What a library says of a file, on one line of bearable length."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 400 else f"{said[:400]} ..."


def backbone_state(detector_state: State) -> dict[str, Tensor]:
    """The backbone's part of a detector's weights, under a ResNet's names."""
    return {
        name.removeprefix(BACKBONE_PREFIX): tensor
        for name, tensor in detector_state.items()
        if name.startswith(BACKBONE_PREFIX)
    }


def imagenet_backbone(backbone: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of resnet18, 34 or 50, without the classifier."""
    state = torchvision_weights(IMAGENET_WEIGHTS[backbone])
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def cut_to_person(state: State, anchors_per_cell: int, origin: str) -> dict[str, Tensor]:
    """A RetinaNet's weights with the classification head cut to COCO's `person` row of each anchor.

    Raises PersonSearchError, naming `origin`, if the head is missing or of another shape.
    """
    state = dict(state)
    for part in ("weight", "bias"):
        name = f"head.classification_head.cls_logits.{part}"
        if name not in state:
            raise PersonSearchError(
                f"weights of {origin} have a RetinaNet's backbone ({BACKBONE_PREFIX}*), but no {name}: "
                f"give a whole detector's weights, or a ResNet's without the prefix {BACKBONE_PREFIX}"
            )
        rows = state[name]
        classes, rest = divmod(len(rows), anchors_per_cell)
        if rest == 0 and classes == COCO_CLASSES:
            state[name] = rows.view(anchors_per_cell, classes, *rows.shape[1:])[:, COCO_PERSON].clone()
        elif rest or classes != 1:
            raise PersonSearchError(
                f"{name} has {len(rows)} rows: neither one class nor COCO's {COCO_CLASSES} for "
                f"{anchors_per_cell} anchors per cell; set anchor_ratios to those of the weights"
            )
    return state


def current_names(state: State) -> dict[str, Tensor]:
    """Current names: older RetinaNets of torchvision have conv.0, conv.2 ... for today's conv.0.0 ..."""
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "head" and len(parts) == 5 and parts[2] == "conv":
            parts[3:4] = [str(int(parts[3]) // 2), "0"]
        renamed[".".join(parts)] = tensor
    return renamed


def torchvision_weights(weights: WeightsEnum) -> State:
    """Weights of a torchvision enum, downloaded into torch's cache if needed."""
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        # `coco` implies the epsilon that the weights were trained with; a file does not.
        epsilon = ", with norm_epsilon: 0" if isinstance(weights, RetinaNet_ResNet50_FPN_Weights) else ""
        raise PersonSearchError(
            f"torchvision's weights {weights} could not be downloaded ({error}); download "
            f"{weights.url} elsewhere and give the file as initial_weights{epsilon}"
        ) from error
    return state
