"""A trained joint model as one folder: load it in one call, or run it without this package.

model.json           the ROI recipe, how to prepare images, where the model came from
detector.safetensors, detector.json, branch.safetensors
detector.pt2, branch.pt2      torch.export programs (`export_programs`)
detector.onnx, branch.onnx    the same in ONNX
model_card.md        what it was trained on, its figures and its limits, for people
SHA256SUMS           digests of all files, which `load_model` and `sha256sum --check` check
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from personsearch_core.checksums import CHECKSUMS, UNFINISHED_CHECKSUMS, checksum_text, problems
from personsearch_core.data.decoding import PADDING_COLOUR
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.box_deltas import decode_boxes
from personsearch_core.models.branch import Branch
from personsearch_core.models.descriptions import (
    MODEL_FORMAT,
    part,
    read_description,
    read_model_description,
)
from personsearch_core.models.detector import IMAGENET_MEAN, IMAGENET_STD, Detector, shared_map
from personsearch_core.models.weights import (
    DETECTOR_DESCRIPTION,
    DETECTOR_WEIGHTS,
    load_branch,
    load_detector,
    save_branch,
    save_detector,
)
from personsearch_core.recipes import Compute, RoiRecipe
from personsearch_core.search.network import PersonSearchNet

DESCRIPTION = "model.json"
BRANCH = "branch.safetensors"
MODEL_CARD = "model_card.md"
_WHAT = "an exported model"
_UNFINISHED = "model.json.partial"
_GRAPHS = ("detector", "branch")
FILES = frozenset(
    {DESCRIPTION, _UNFINISHED, DETECTOR_WEIGHTS, DETECTOR_DESCRIPTION, BRANCH, MODEL_CARD}
    | {CHECKSUMS, UNFINISHED_CHECKSUMS}
    | {f"{graph}.{kind}" for graph in _GRAPHS for kind in ("pt2", "onnx")}
)
"""All files that a model's folder may hold."""
LOADED = (DESCRIPTION, DETECTOR_WEIGHTS, DETECTOR_DESCRIPTION, BRANCH)


def save_model(
    directory: Path,
    detector: Detector,
    branch: Branch,
    roi: RoiRecipe,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write weights and recipes into a folder, which is created; a model that is there is replaced.

    The description is written last: if writing is interrupted, the folder holds no model.

    Parameters
    ----------
    directory
        New, empty, or holding a model.
    detector, branch, roi
        The parts of a `PersonSearchNet`.
    provenance
        Where the model came from (keys of artifacts, configs, results), as JSON.

    Raises
    ------
    PersonSearchError
        If the folder holds anything else, or if branch and ROI are of different variants.
    """
    require_place_for_model(directory)
    if branch.variant != roi.variant:
        raise PersonSearchError(f"the branch is for {branch.variant}, the ROIs are for {roi.variant}")
    directory.mkdir(parents=True, exist_ok=True)
    for name in (DESCRIPTION, *sorted(FILES)):
        (directory / name).unlink(missing_ok=True)
    save_detector(directory, detector)
    save_branch(directory / BRANCH, branch)
    model = detector.model
    description = {
        "format": MODEL_FORMAT,
        "roi": roi.model_dump(mode="json"),
        "preprocessing": {
            "input": "uint8 RGB, (batch, 3, height, width); values are normalised inside the network",
            "width": model.image_width,
            "height": model.image_height,
            "resize": model.resize,
            "placement": "top left; bilinear with antialiasing",
            "padding_colour": PADDING_COLOUR,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        },
        "provenance": dict(provenance or {}),
    }
    (directory / _UNFINISHED).write_text(json.dumps(description, indent=2) + "\n")
    written = {name: directory / (_UNFINISHED if name == DESCRIPTION else name) for name in LOADED}
    (directory / CHECKSUMS).write_text(checksum_text(written))
    (directory / _UNFINISHED).replace(directory / DESCRIPTION)


def require_place_for_model(directory: Path) -> None:
    """Raise PersonSearchError if the folder holds files that are not a model's."""
    if directory.exists() and not directory.is_dir():
        raise PersonSearchError(f"{directory} is a file: name a folder for the model")
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    strangers = [path.name for path in found if path.name not in FILES or not path.is_file()]
    if not strangers and (directory / DESCRIPTION).exists() and not _describes_model(directory / DESCRIPTION):
        strangers = [DESCRIPTION]
    if strangers:
        raise PersonSearchError(
            f"{directory} holds {strangers[0]}, which is not part of a model: "
            "name a new or empty folder, or one whose model is to be replaced"
        )


def present_files(directory: Path) -> list[str]:
    """The model's files that a folder holds, for a record of their digests."""
    notes = {CHECKSUMS, UNFINISHED_CHECKSUMS, _UNFINISHED}
    return sorted(name for name in FILES - notes if (directory / name).is_file())


def _describes_model(file: Path) -> bool:
    """Whether `save_model` wrote it; other programs use the name too."""
    try:
        return {"format", "roi"}.issubset(read_description(file, _WHAT))
    except PersonSearchError:
        return False


def load_model(directory: str | Path, compute: Compute | None = None) -> PersonSearchNet:
    """Load the model that `save_model` wrote.

    Parameters
    ----------
    directory
        The model's folder.
    compute
        Precision, memory format and compilation; by default plain fp32.

    Returns
    -------
    PersonSearchNet
        On the CPU, ready to search.

    Raises
    ------
    PersonSearchError
        If the folder holds no model, a damaged one, or one of another format.

    Examples
    --------
    >>> import tempfile
    >>> from personsearch_core import BranchModel, DetectorModel, build_branch, build_detector
    >>> model = DetectorModel(
    ...     backbone="resnet18", initial_weights=None, norm="group", fpn_channels=8, head_convolutions=1
    ... )
    >>> branch = build_branch("j4", model, BranchModel(initial_weights="random"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(Path(folder), build_detector(model), branch, RoiRecipe(variant="j4"))
    ...     load_model(folder)
    PersonSearchNet(variant=j4, backbone=resnet18, input=640x640, roi=8x16, embedding_dim=256)
    """
    folder = Path(directory)
    require_whole_model(folder)
    description = read_model_description(folder / DESCRIPTION)
    roi = part(RoiRecipe, description, "roi", f"{folder / DESCRIPTION} does not describe {_WHAT}")
    detector, branch = load_detector(folder), load_branch(folder / BRANCH)
    if branch.variant != "disj" and branch.detector_model.backbone != detector.model.backbone:
        raise PersonSearchError(
            f"{folder / BRANCH} continues a {branch.detector_model.backbone}, but the detector has a "
            f"{detector.model.backbone}: export the model again"
        )
    return PersonSearchNet(detector, branch, roi, compute)


def require_whole_model(directory: Path) -> None:
    """Check what `load_model` reads against the digests recorded when it was written.

    Models of earlier versions have no digests. Raises PersonSearchError if a file is missing or has other
    bytes.
    """
    if found := problems(directory, LOADED):
        raise PersonSearchError(
            f"the model in {directory} is damaged: {found[0]}: export or copy it again, or remove "
            f"{CHECKSUMS} if you changed it yourself"
        )


class DetectorGraph(nn.Module):
    """uint8 images (B, 3, H, W) -> scores (B, A), boxes (B, A, 4) in input pixels, and the shared map.

    Boxes are decoded, but not clipped or suppressed: non-maximum suppression is left to the runtime. The
    shared map is left out where no variant is given.
    """

    anchors: Tensor

    def __init__(self, detector: Detector, variant: str | None) -> None:
        super().__init__()
        self.detector = detector
        self.variant = variant
        model = detector.model
        anchors = detector.anchor_grid.anchors(model.image_height, model.image_width, torch.device("cpu"))
        self.register_buffer("anchors", anchors)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        logits, deltas, maps = self.detector(images)
        outputs = (torch.sigmoid(logits), decode_boxes(deltas, self.anchors))
        shared = shared_map(maps, self.variant)
        return outputs if shared is None else (*outputs, shared)


class BranchGraph(nn.Module):
    """Pooled maps (N, C, h, w) float32, or crops (N, 3, h, w) uint8 -> embeddings of `Branch.embed`."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, pooled: Tensor) -> Tensor:
        return self.branch.embed(pooled)


def export_programs(directory: Path, net: PersonSearchNet, *, onnx: bool = True) -> list[Path]:
    """Write a model as torch.export programs and ONNX files; batch sizes stay free.

    Parameters
    ----------
    directory
        Created if needed.
    net
        In fp32, on the CPU.
    onnx
        Whether to write ONNX too, which needs the packages of the `export` extra.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    PersonSearchError
        If the model is compiled, channels-last or not in fp32.
    """
    if net.compute != Compute():
        raise PersonSearchError("export a model in fp32, not compiled and not channels-last")
    directory.mkdir(parents=True, exist_ok=True)
    model, shared = net.detector.model, None if net.disjoint else net.roi.variant
    images = torch.zeros((2, 3, model.image_height, model.image_width), dtype=torch.uint8)
    dtype = torch.uint8 if net.disjoint else torch.float32
    pooled = torch.zeros((2, *net.roi.row_shape(model.backbone)), dtype=dtype)
    names = ["scores", "boxes", *([] if net.disjoint else ["shared"])]
    files = []
    for name, graph, example, given, outputs in (
        ("detector", DetectorGraph(net.detector, shared), images, "images", names),
        ("branch", BranchGraph(net.branch), pooled, "pooled", ["embeddings"]),
    ):
        with torch.no_grad():
            batches = {given: {0: Dim("batch", min=1)}}
            program = torch.export.export(graph.eval(), (example,), dynamic_shapes=batches)
        torch.export.save(program, directory / f"{name}.pt2")
        files.append(directory / f"{name}.pt2")
        if onnx:
            path = directory / f"{name}.onnx"
            torch.onnx.export(
                program,
                (),
                path,
                input_names=[given],
                output_names=outputs,
                external_data=False,
                verbose=False,
            )
            files.append(path)
    return files
