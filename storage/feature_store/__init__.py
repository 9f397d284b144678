"""Arrays of rows in plain Zarr v3: written once, shard by shard, and read in random batches at the speed of
memory.

The public names are listed here, and each loads what it needs on first use (PEP 562): reading a local store
loads neither TensorStore, zarr nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.feature_store.buffers import allocate_buffer
    from storage.feature_store.codecs import RowCodec, principal_axes, stored_row
    from storage.feature_store.decoding import read_codec
    from storage.feature_store.digests import read_digests, read_file_digests
    from storage.feature_store.export import export_rows
    from storage.feature_store.finishing import finish_features
    from storage.feature_store.index_table import write_index
    from storage.feature_store.joining import join_readers
    from storage.feature_store.layout import FILES_FILE
    from storage.feature_store.opening import open_features
    from storage.feature_store.reader import FeatureReader, Tier
    from storage.feature_store.shard_cache import ShardCache
    from storage.feature_store.statistics import FeatureStatistics, feature_statistics
    from storage.feature_store.summary import FeatureSummary, features_bytes, summarise_features
    from storage.feature_store.taking_over import (
        DamagedRowsError,
        EarlierRows,
        adopt_shards,
        fill_shards,
        missing_rows,
    )
    from storage.feature_store.verification import DamagedShard, remove_shards, verify_features
    from storage.feature_store.writer import FeatureWriter, create_features

_NAMES = {
    "buffers": ("allocate_buffer",),
    "codecs": ("RowCodec", "principal_axes", "stored_row"),
    "decoding": ("read_codec",),
    "digests": ("read_digests", "read_file_digests"),
    "export": ("export_rows",),
    "finishing": ("finish_features",),
    "index_table": ("write_index",),
    "joining": ("join_readers",),
    "layout": ("FILES_FILE",),
    "opening": ("open_features",),
    "reader": ("FeatureReader", "Tier"),
    "shard_cache": ("ShardCache",),
    "statistics": ("FeatureStatistics", "feature_statistics"),
    "summary": ("FeatureSummary", "features_bytes", "summarise_features"),
    "taking_over": ("DamagedRowsError", "EarlierRows", "adopt_shards", "fill_shards", "missing_rows"),
    "verification": ("DamagedShard", "remove_shards", "verify_features"),
    "writer": ("FeatureWriter", "create_features"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "FILES_FILE",
    "DamagedRowsError",
    "DamagedShard",
    "EarlierRows",
    "FeatureReader",
    "FeatureStatistics",
    "FeatureSummary",
    "FeatureWriter",
    "RowCodec",
    "ShardCache",
    "Tier",
    "adopt_shards",
    "allocate_buffer",
    "create_features",
    "export_rows",
    "feature_statistics",
    "features_bytes",
    "fill_shards",
    "finish_features",
    "join_readers",
    "missing_rows",
    "open_features",
    "principal_axes",
    "read_codec",
    "read_digests",
    "read_file_digests",
    "remove_shards",
    "stored_row",
    "summarise_features",
    "verify_features",
    "write_index",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
