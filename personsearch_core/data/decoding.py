"""Image files -> uint8 RGB tensors (3, H, W), and their placement on the network's input."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms.v2 import functional as F

from personsearch_core.boxes import Placement
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError

logger = logging.getLogger(__name__)

PADDING_COLOUR = (124, 116, 104)
"""ImageNet's mean colour: padding is zero after the network's normalisation."""


def read_image(path: str | Path) -> Tensor:
    """Decode to uint8 RGB (3, H, W), as the file stores it: EXIF orientation is not applied.

    What torchvision's decoders do not know (BMP, TIFF, CMYK JPEG) is decoded by Pillow, and the log says so.
    Raises PersonSearchError for a file that is missing or is no image.
    """
    try:
        return decode_image(read_file(str(path)), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise PersonSearchError(f"image {path} does not exist") from error
    except (UnidentifiedImageError, OSError) as error:
        raise PersonSearchError(f"image {path} cannot be decoded: {error}") from error
    logger.warning("%s was decoded by Pillow, torchvision could not: %s", path, reason)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_scene(scene: Scene) -> Tensor:
    """Decode a scene's image, and hold its size against the one that its boxes refer to."""
    image = read_image(scene.path)
    height, width = image.shape[-2:]
    if (width, height) != (scene.width, scene.height):
        raise PersonSearchError(
            f"image {scene.path} is {width}x{height} pixels, but scene {scene.image_id} says "
            f"{scene.width}x{scene.height}: ingest the dataset again"
        )
    return image


def render(image: Tensor, placement: Placement, out: Tensor | None = None) -> Tensor:
    """Put the placement's source region onto its target and pad the rest: uint8 (3, H, W).

    Bilinear with antialiasing, so that a person shrunk from 1920 to 640 pixels keeps what can be kept.
    """
    x1, y1, x2, y2 = placement.source
    u1, v1, u2, v2 = placement.target
    region = image[:, y1:y2, x1:x2]
    if region.shape[-2:] != (v2 - v1, u2 - u1):
        region = F.resize_image(region, [v2 - v1, u2 - u1], antialias=True)
    if placement.mirrored:
        region = region.flip(-1)
    if out is None:
        out = torch.empty((3, placement.input_height, placement.input_width), dtype=torch.uint8)
    if (u1, v1, u2, v2) != (0, 0, placement.input_width, placement.input_height):
        out.copy_(torch.tensor(PADDING_COLOUR, dtype=torch.uint8)[:, None, None])
    out[:, v1:v2, u1:u2] = region
    return out
