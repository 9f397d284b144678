"""Arrays of rows in plain Zarr v3: written once, shard by shard, and read in random batches at the speed of
memory.
"""

from storage.feature_store.index_table import INDEX_COLUMNS, write_index
from storage.feature_store.opening import open_features
from storage.feature_store.reader import FeatureReader, Tier
from storage.feature_store.writer import FeatureWriter, create_features, finish_features

__all__ = [
    "INDEX_COLUMNS",
    "FeatureReader",
    "FeatureWriter",
    "Tier",
    "create_features",
    "finish_features",
    "open_features",
    "write_index",
]
