"""ROI features of boxes: from original pixels to a fixed-size map, or to a crop for disj."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align, roi_pool
from torchvision.transforms.v2 import functional as F

from personsearch_core.boxes import Boxes, Placement, clip_boxes, widen_boxes
from personsearch_core.data.network_input import PlacedImage
from personsearch_core.models.compute import on_device
from personsearch_core.pooling.bilinear import bilinear_roi_align
from personsearch_core.recipes import SHARED_STRIDE, RoiRecipe


def clipped_rois(boxes: Boxes, width: int, height: int, roi: RoiRecipe) -> Boxes:
    """Boxes (n, 4) in original pixels, widened by the recipe's margin and clipped to the image."""
    return clip_boxes(widen_boxes(boxes, roi.margin), width, height)


def roi_boxes(rois: Boxes, placement: Placement, roi: RoiRecipe) -> Boxes:
    """Clipped ROIs (n, 4) in original pixels -> cells of the shared map, for `pool_shared_map`.

    Accounts for letterbox, mirroring and stride.
    """
    cells: Boxes = placement.map_boxes(rois) / np.asarray(SHARED_STRIDE[roi.variant], dtype=rois.dtype)
    return cells


def in_original_pixels(boxes: Tensor, placement: Placement) -> Boxes:
    """Boxes (n, 4) in pixels of the network's input -> float32 pixels of the whole image, clipped to it."""
    return clip_boxes(placement.unmap_boxes(boxes.float().cpu().numpy()), *placement.source[2:])


def pool_people(
    placed: Sequence[PlacedImage], boxes: Sequence[Boxes], shared: Tensor | None, roi: RoiRecipe
) -> Tensor:
    """The branch's inputs (sum n, ...) for each image's boxes (n, 4), in original pixels.

    Pooled from the shared map (B, C, h, w) as `pool_shared_map` does; without one, crops of the images
    themselves as of `crop_people`.
    """
    rois = [clipped_rois(own, *each.size, roi) for own, each in zip(boxes, placed, strict=True)]
    if shared is None:
        images = [each.image for each in placed if each.image is not None]
        return torch.cat([crop_people(image, own, roi) for image, own in zip(images, rois, strict=True)])
    cells = [roi_boxes(own, each.placement, roi) for own, each in zip(rois, placed, strict=True)]
    return pool_shared_map(shared, cells, roi)


def pool_shared_map(shared: Tensor, rois: Sequence[Boxes], roi: RoiRecipe) -> Tensor:
    """Pool each image's ROIs (in cells of the map) from maps (B, C, h, w): (sum n, C, H, W), float32.

    `roi_pool` is torchvision's: it rounds a ROI to whole cells, of which the last row and column count too.
    On a CPU, `roi_align` with a fixed number of samples gives a result that is channels last in memory;
    `models.compute.arrange` it for a network. `roi_pool` and adaptive sampling use torchvision's
    single-threaded kernels.
    """
    images = np.repeat(np.arange(len(rois)), [len(own) for own in rois])
    boxes = np.concatenate([np.reshape(own, (-1, 4)) for own in rois]) if len(rois) else np.empty((0, 4))
    rows = on_device(torch.from_numpy(np.column_stack([images, boxes]).astype(np.float32)), shared.device)
    if roi.operator == "roi_align" and shared.device.type == "cpu" and roi.sampling_ratio > 0:
        return bilinear_roi_align(shared.float(), rows, roi.roi_size, roi.sampling_ratio)
    maps = shared.float().contiguous()
    if roi.operator == "roi_pool":
        pooled: Tensor = roi_pool(maps, rows, roi.roi_size, 1.0)
    else:
        pooled = roi_align(maps, rows, roi.roi_size, 1.0, roi.sampling_ratio, aligned=True)
    return pooled


def crop_people(image: Tensor, rois: Boxes, roi: RoiRecipe, mirrored: bool = False) -> Tensor:
    """Crops of disj from a full-resolution image: uint8 (n, 3, H, W) on its device, antialiased bilinear.

    ROIs are widened to whole pixels; a ROI outside the image takes the nearest pixel.
    """
    height, width = image.shape[-2:]
    crops = image.new_empty((len(rois), 3, *roi.roi_size))
    for crop, (x1, y1, x2, y2) in zip(crops, rois, strict=True):
        left, top = min(int(np.floor(x1)), width - 1), min(int(np.floor(y1)), height - 1)
        right, bottom = max(left + 1, int(np.ceil(x2))), max(top + 1, int(np.ceil(y2)))
        region = F.resize_image(image[:, top:bottom, left:right], list(roi.roi_size), antialias=True)
        crop.copy_(region.flip(-1) if mirrored else region)
    return crops
