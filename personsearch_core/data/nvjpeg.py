"""JPEGs decoded on a GPU, those of a batch in one call: its decoders work on several at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from personsearch_core.boxes import Placement
from personsearch_core.data.decoding import check_size, open_image, orientation, read_scene, render, turned
from personsearch_core.data.scenes import Scene

logger = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """A JPEG of a scene that is yet to be decoded.

    jpeg: the file's bytes, uint8 (n,). turn: the EXIF orientation to undo, 1 to 8.
    """

    scene: Scene
    placement: Placement
    jpeg: Tensor
    turn: int


def encoded_scene(scene: Scene, placement: Placement) -> Encoded | None:
    """The scene's file, its size checked; None where a CPU decodes it.

    That is, if it is not a JPEG, or one in CMYK, or progressive, which a GPU's decoders leave to the host,
    one image after another. Raises what `read_scene` raises.
    """
    with open_image(scene.path) as image:
        if image.format != "JPEG" or image.mode not in ("L", "RGB") or "progressive" in image.info:
            return None
        turn = orientation(image) if scene.apply_exif else 1
        width, height = image.size if turn < 5 else image.size[::-1]
        check_size(scene, width, height)
        return Encoded(scene, placement, read_file(scene.path), turn)


def decode_together(encoded: Sequence[Encoded], device: torch.device) -> list[Tensor]:
    """Decode and place scenes on a GPU's network input: uint8 (3, H, W) each.

    On the current stream, whose kernels must be done with all memory that they have freed: the decoder writes
    on a stream of its own and waits for none of them. `prefetch.brought` has a stream for this.
    Raises what `read_scene` raises for a file that neither the GPU nor the CPU decodes.
    """
    if not encoded:
        return []
    try:
        pixels = decode_jpeg([each.jpeg for each in encoded], mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        # One that it cannot decode fails them all.
        logger.warning(
            "%d images, from %s on, are decoded by the CPU because nvJPEG failed: %s",
            len(encoded),
            encoded[0].scene.path,
            str(error).splitlines()[0],
        )
        return [render(read_scene(each.scene), each.placement).to(device) for each in encoded]
    return [
        render(turned(image, each.turn), each.placement) for image, each in zip(pixels, encoded, strict=True)
    ]
