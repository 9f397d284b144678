"""ROI features of boxes: ground truth for training, detections and queries for search."""
