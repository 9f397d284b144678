"""Scenes on the network's input, decoded as the detector's model says: in full, reduced, or on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from personsearch_core.boxes import Placement, place_image
from personsearch_core.data.decoding import (
    check_size,
    open_image,
    orientation,
    read_scene,
    render,
    write_region,
)
from personsearch_core.data.nvjpeg import Encoded, decode_together, encoded_scene
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.compute import on_device
from personsearch_core.recipes import DetectorModel

REDUCTIONS = (8, 4, 2)
"""By how much a JPEG's decoder can reduce an image: each block of 8x8 pixels becomes 1, 2x2 or 4x4."""


Picture = Tensor | Encoded
"""An image on the network's input, uint8 (3, H, W), or a JPEG that a GPU is still to decode onto it."""


class PlacedImage(NamedTuple):
    """An image on the network's input; where it was placed; for disj, itself."""

    pixels: Picture
    placement: Placement
    image: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image itself."""
        return self.placement.source[2:]


def require_decoder(model: DetectorModel, device: torch.device) -> None:
    """Raise PersonSearchError if the model's images cannot be decoded where it computes."""
    if model.decode == "nvjpeg" and device.type != "cuda":
        raise PersonSearchError(
            f"model.decode: nvjpeg decodes on an NVIDIA GPU, but this computes on {device}: use full or "
            "reduced, or a GPU as run.device"
        )


def input_placement(width: int, height: int, model: DetectorModel, *, mirrored: bool = False) -> Placement:
    """Where a whole image of this size lies on the model's input."""
    return place_image(width, height, model.image_width, model.image_height, model.resize, mirrored=mirrored)


def place_pixels(image: Tensor, model: DetectorModel, *, keep: bool = False) -> PlacedImage:
    """An image, uint8 (3, H, W), on the network's input; `keep` it for disj."""
    placement = input_placement(image.shape[-1], image.shape[-2], model)
    return PlacedImage(render(image, placement), placement, image if keep else None)


def place_scene(scene: Scene, model: DetectorModel, *, mirrored: bool = False) -> PlacedImage:
    """A scene on the network's input; see `picture_of`."""
    placement = input_placement(scene.width, scene.height, model, mirrored=mirrored)
    return PlacedImage(picture_of(scene, placement, model), placement)


def picture_of(
    scene: Scene, placement: Placement, model: DetectorModel, out: Tensor | None = None
) -> Picture:
    """Decode a scene and render its placement, into `out` if given, unless a GPU is to do it.

    Raises what `read_scene` raises.
    """
    if model.decode == "nvjpeg":
        encoded = encoded_scene(scene, placement)
        if encoded is not None:
            return encoded
    if model.decode == "reduced":
        region = _reduced_region(scene, placement)
        if region is not None:
            return write_region(region, placement, out)
    return render(read_scene(scene), placement, out)


def decoded(pictures: Sequence[Picture], device: torch.device) -> list[Tensor]:
    """Pictures (3, H, W) in one place: on the device if it is to decode any; see `decode_together`."""
    encoded = [each for each in pictures if isinstance(each, Encoded)]
    if not encoded:
        return [each for each in pictures if isinstance(each, Tensor)]
    found = iter(decode_together(encoded, device))
    return [next(found) if isinstance(each, Encoded) else on_device(each, device) for each in pictures]


def reduction(placement: Placement) -> int:
    """The largest reduction that leaves the placement's region no smaller than its target; 1 if none does."""
    x1, y1, x2, y2 = placement.source
    u1, v1, u2, v2 = placement.target
    fits = (by for by in REDUCTIONS if x2 - x1 >= by * (u2 - u1) and y2 - y1 >= by * (v2 - v1))
    return next(fits, 1)


def _reduced_region(scene: Scene, placement: Placement) -> Tensor | None:
    """The placement's region at its target's size: uint8 (3, h, w), of an image that was decoded smaller.

    None where the image has to be decoded in full: it is not a JPEG, is turned by its EXIF orientation, or
    must not be reduced by 2 or more. The region's corners may lie within pixels of the reduced image.
    """
    by = reduction(placement)
    if by == 1:
        return None
    u1, v1, u2, v2 = placement.target
    with open_image(scene.path) as image:
        turned = scene.apply_exif and orientation(image) != 1
        if image.format != "JPEG" or image.mode not in ("L", "RGB") or turned:
            return None
        check_size(scene, image.width, image.height)
        image.draft("RGB", (scene.width // by, scene.height // by))
        x1, y1, x2, y2 = (corner / by for corner in placement.source)
        size, region = (u2 - u1, v2 - v1), (x1, y1, x2, y2)
        pixels = image.convert("RGB").resize(size, Image.Resampling.BILINEAR, region)
    return (
        torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8)
        .view(v2 - v1, u2 - u1, 3)
        .permute(2, 0, 1)
    )
