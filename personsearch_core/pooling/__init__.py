"""ROI features of boxes: ground truth for training, detections and queries for search."""

from personsearch_core.pooling.detections import SceneDetections, detect_scenes
from personsearch_core.pooling.extraction import (
    RowPlan,
    extract_rows,
    extract_shard,
    extract_shards,
    feature_rows,
)
from personsearch_core.pooling.rois import clipped_rois, crop_people, pool_shared_map, roi_boxes

__all__ = [
    "RowPlan",
    "SceneDetections",
    "clipped_rois",
    "crop_people",
    "detect_scenes",
    "extract_rows",
    "extract_shard",
    "extract_shards",
    "feature_rows",
    "pool_shared_map",
    "roi_boxes",
]
