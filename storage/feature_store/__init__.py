"""Arrays of rows in plain Zarr v3: written once, shard by shard, and read in random batches at the speed of
memory.

What users import stands here; a name is loaded when it is first used. Reading a local store loads neither
TensorStore, zarr nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from storage.errors import StorageError

if TYPE_CHECKING:
    from storage.feature_store.codecs import RowCodec, principal_axes
    from storage.feature_store.export import export_rows
    from storage.feature_store.finishing import finish_features
    from storage.feature_store.index_table import write_index
    from storage.feature_store.joining import join_readers
    from storage.feature_store.opening import open_features
    from storage.feature_store.reader import FeatureReader, Tier
    from storage.feature_store.shard_cache import ShardCache
    from storage.feature_store.statistics import FeatureStatistics, feature_statistics
    from storage.feature_store.summary import FeatureSummary, features_bytes, summarise_features
    from storage.feature_store.verification import DamagedShard, remove_shards, verify_features
    from storage.feature_store.writer import FeatureWriter, create_features

_MODULES = {
    "codecs": ("RowCodec", "principal_axes"),
    "export": ("export_rows",),
    "finishing": ("finish_features",),
    "index_table": ("write_index",),
    "joining": ("join_readers",),
    "opening": ("open_features",),
    "reader": ("FeatureReader", "Tier"),
    "shard_cache": ("ShardCache",),
    "statistics": ("FeatureStatistics", "feature_statistics"),
    "summary": ("FeatureSummary", "features_bytes", "summarise_features"),
    "verification": ("DamagedShard", "remove_shards", "verify_features"),
    "writer": ("FeatureWriter", "create_features"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DamagedShard",
    "FeatureReader",
    "FeatureStatistics",
    "FeatureSummary",
    "FeatureWriter",
    "RowCodec",
    "ShardCache",
    "StorageError",
    "Tier",
    "create_features",
    "export_rows",
    "feature_statistics",
    "features_bytes",
    "finish_features",
    "join_readers",
    "open_features",
    "principal_axes",
    "remove_shards",
    "summarise_features",
    "verify_features",
    "write_index",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
