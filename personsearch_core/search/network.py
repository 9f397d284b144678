"""Detector and branch as one network: scenes in, people with embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from personsearch_core.boxes import Boxes, Placement
from personsearch_core.data.decoding import ImageSource, as_pixels
from personsearch_core.data.network_input import PlacedImage, decoded, place_pixels
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.branch import Branch
from personsearch_core.models.candidates import Candidates, suppress
from personsearch_core.models.compute import arrange, autocast, batch_on, model_device, prepare
from personsearch_core.models.detector import Detector
from personsearch_core.pooling.rois import in_original_pixels, pool_people
from personsearch_core.recipes import Compute, RoiRecipe
from personsearch_core.search.people import FoundPeople
from personsearch_core.training.memory import advice_when_out_of_memory


class People(NamedTuple):
    """The people of one image, best first.

    Attributes
    ----------
    boxes
        (n, 4) float32: x1, y1, x2, y2 in pixels of the original image.
    scores
        (n,) detection scores, from 0 to 1.
    embeddings
        (n, D), L2-normalised if the branch's `normalise` is on.
    """

    boxes: Boxes
    scores: Tensor
    embeddings: Tensor


class PersonSearchNet(nn.Module):
    """Detector and branch as one network.

    J2, J3 and J4 compute the shared map once, for the detector and for the branch. Disj crops people from the
    images as they are given, at full resolution.

    Parameters
    ----------
    detector, branch
        Put into evaluation mode and prepared for `compute`, in place.
    roi
        How boxes become inputs of the branch; of the branch's variant.
    compute
        Precision, memory format and compilation; by default plain fp32.

    Raises
    ------
    PersonSearchError
        If branch and ROI are of different variants.

    Examples
    --------
    >>> from personsearch_core import BranchModel, DetectorModel, build_branch, build_detector
    >>> model = DetectorModel(
    ...     backbone="resnet18", initial_weights=None, norm="group", image_width=64, image_height=64,
    ...     fpn_channels=8, head_convolutions=1,
    ... )
    >>> branch = build_branch("j3", model, BranchModel(embedding_dim=8, initial_weights="random"))
    >>> net = PersonSearchNet(build_detector(model), branch, RoiRecipe(variant="j3"))
    >>> net
    PersonSearchNet(variant=j3, backbone=resnet18, input=64x64, roi=16x32, embedding_dim=8)
    >>> scene = torch.zeros(3, 90, 120, dtype=torch.uint8)
    >>> import numpy as np
    >>> (people,) = net.search([scene], boxes=[np.array([[10, 10, 40, 80], [50, 10, 80, 80]], np.float32)])
    >>> people.embeddings.shape
    torch.Size([2, 8])
    """

    def __init__(
        self, detector: Detector, branch: Branch, roi: RoiRecipe, compute: Compute | None = None
    ) -> None:
        super().__init__()
        if branch.variant != roi.variant:
            raise PersonSearchError(f"the branch is for {branch.variant}, the ROIs are for {roi.variant}")
        self.compute = compute or Compute()
        self.detector = prepare(detector.eval(), self.compute)
        self.branch = prepare(branch.eval(), self.compute, any_batch=True)
        self.roi = roi

    def __repr__(self) -> str:
        model, (height, width) = self.detector.model, self.roi.roi_size
        return (
            f"PersonSearchNet(variant={self.roi.variant}, backbone={model.backbone}, "
            f"input={model.image_width}x{model.image_height}, roi={width}x{height}, "
            f"embedding_dim={self.branch.branch.embedding_dim})"
        )

    @torch.inference_mode()
    def search(
        self,
        images: Sequence[Tensor],
        boxes: Sequence[Boxes] | None = None,
        *,
        score_threshold: float = 0.5,
        nms_threshold: float = 0.5,
        max_per_image: int = 100,
    ) -> list[People]:
        """Detect and embed the people in scenes.

        Parameters
        ----------
        images
            uint8 (3, H, W) each, of any sizes.
        boxes
            Per image (n, 4) in original pixels: embed these people instead, with score 1; the heads are not
            run.
        score_threshold, nms_threshold, max_per_image
            As in `Detector.detect`.

        Returns
        -------
        list of People
            Per image, best first.
        """
        placed = [self.place(image) for image in images]
        return self.search_placed(
            placed,
            boxes,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_per_image=max_per_image,
        )

    @torch.inference_mode()
    @advice_when_out_of_memory("search fewer images at once, or on a machine with more memory")
    def search_placed(
        self,
        placed: Sequence[PlacedImage],
        boxes: Sequence[Boxes] | None = None,
        *,
        score_threshold: float = 0.5,
        nms_threshold: float = 0.5,
        max_per_image: int = 100,
    ) -> list[People]:
        """`search` for images that `place` has placed, in other threads for instance."""
        if not placed:
            return []
        inputs = self.network_input(placed)
        if boxes is None:
            candidates, shared = self.candidates(inputs, [each.placement for each in placed])
            _require(candidates.finite)
            found = suppress(
                candidates,
                len(placed),
                score_threshold=score_threshold,
                nms_threshold=nms_threshold,
                max_per_image=max_per_image,
            )
            scores = [people.scores for people in found]
            boxes = [
                in_original_pixels(people.boxes, each.placement)
                for people, each in zip(found, placed, strict=True)
            ]
        else:
            scores = [torch.ones(len(own)) for own in boxes]
            with autocast(self.compute, inputs.device):
                shared = None if self.disjoint else self.detector.shared_maps(inputs, self.roi.variant)
        embeddings = self.embed(placed, boxes, shared)
        for each in embeddings:
            _require(torch.isfinite(each).all())
        return [People(*parts) for parts in zip(boxes, scores, embeddings, strict=True)]

    def people(
        self,
        image: ImageSource,
        *,
        score_threshold: float = 0.5,
        nms_threshold: float = 0.5,
        max_per_image: int = 100,
    ) -> FoundPeople:
        """The people in one picture: a tuple of `Person`, best first, that draws itself in a notebook.

        Parameters
        ----------
        image
            A file, the bytes of one, a PIL image, or uint8 (3, H, W).
        score_threshold, nms_threshold, max_per_image
            As in `search`.

        Raises
        ------
        PersonSearchError
            If the image cannot be read.
        """
        pixels = as_pixels(image)
        (found,) = self.search(
            [pixels],
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_per_image=max_per_image,
        )
        return FoundPeople.of(pixels, found.boxes, found.scores, found.embeddings)

    def place(self, image: Tensor) -> PlacedImage:
        """An image, uint8 (3, H, W), resized onto the network's input."""
        return place_pixels(image, self.detector.model, keep=self.disjoint)

    @property
    def disjoint(self) -> bool:
        """Whether people are embedded from crops instead of the shared map."""
        return self.roi.variant == "disj"

    def network_input(self, placed: Sequence[PlacedImage]) -> Tensor:
        """The images as one batch: uint8 (B, 3, H, W) on the model's device, filled up if it is compiled."""
        device = model_device(self.detector)
        pixels = decoded([each.pixels for each in placed], device)
        size = 1 << (len(pixels) - 1).bit_length()
        return batch_on(device, pixels, self.compute, size)

    def candidates(self, inputs: Tensor, placements: Sequence[Placement]) -> tuple[Candidates, Tensor | None]:
        """`Detector.candidates` with the shared map (None for disj)."""
        with autocast(self.compute, inputs.device):
            return self.detector.candidates(inputs, placements, None if self.disjoint else self.roi.variant)

    def embed(
        self, placed: Sequence[PlacedImage], boxes: Sequence[Boxes], shared: Tensor | None
    ) -> list[Tensor]:
        """Embeddings (n, D) of each image's boxes (original pixels), in one batch through the branch."""
        pooled = pool_people(placed, boxes, shared, self.roi).to(model_device(self.branch))
        with autocast(self.compute, pooled.device):
            embeddings = self.branch.embed(arrange(pooled, self.compute))
        return list(torch.split(embeddings, [len(own) for own in boxes]))


def _require(finite: Tensor) -> None:
    """Raise PersonSearchError for NaN and infinities, which would look like people whom no one resembles."""
    if not finite:
        raise PersonSearchError(
            "the model's output is not finite: its weights are damaged, or too large for its precision"
        )
