"""Pedestrian datasets in their native formats -> one validated Parquet catalog."""
