"""Arrays of rows in plain Zarr v3: written once, shard by shard, and read in random batches at the speed of
memory.
"""

from storage.feature_store.buffers import allocate_buffer
from storage.feature_store.digests import read_digests, read_file_digests
from storage.feature_store.export import export_rows
from storage.feature_store.finishing import finish_features
from storage.feature_store.index_table import write_index
from storage.feature_store.layout import FILES_FILE
from storage.feature_store.opening import open_features
from storage.feature_store.reader import FeatureReader, Tier
from storage.feature_store.summary import (
    FeatureSummary,
    features_bytes,
    summarise_features,
)
from storage.feature_store.verification import DamagedShard, remove_shards, verify_features
from storage.feature_store.writer import FeatureWriter, create_features

__all__ = [
    "FILES_FILE",
    "DamagedShard",
    "FeatureReader",
    "FeatureSummary",
    "FeatureWriter",
    "Tier",
    "allocate_buffer",
    "create_features",
    "export_rows",
    "features_bytes",
    "finish_features",
    "open_features",
    "read_digests",
    "read_file_digests",
    "remove_shards",
    "summarise_features",
    "verify_features",
    "write_index",
]
