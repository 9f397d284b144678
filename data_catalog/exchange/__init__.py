"""Snapshots in the layouts of other programs: COCO, FiftyOne, YOLO, MOT; described as Croissant."""
