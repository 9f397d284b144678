"""Pedestrian datasets in their native formats, read into one validated Parquet catalog.

What users and authors of adapters import stands here; a name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_catalog.adapters.protocol import Adapter, Layout, Unit, adapter_names, load_adapter
    from data_catalog.catalog import Catalog, Dataset
    from data_catalog.errors import CatalogError
    from data_catalog.files import (
        NameLookup,
        files_with_suffix,
        folders,
        image_files,
        is_image,
        need_files,
        read_text,
        walk,
    )
    from data_catalog.ids import identity, number, whole
    from data_catalog.images import image_size
    from data_catalog.ingest import ingest_root
    from data_catalog.rows import Rows, xywh_corners
    from data_catalog.schema import EXCLUDED, INVALID, SCOPE_SEQUENCE
    from data_catalog.snapshot import Snapshot
    from data_catalog.views import View

__all__ = [
    "EXCLUDED",
    "INVALID",
    "SCOPE_SEQUENCE",
    "Adapter",
    "Catalog",
    "CatalogError",
    "Dataset",
    "Layout",
    "NameLookup",
    "Rows",
    "Snapshot",
    "Unit",
    "View",
    "adapter_names",
    "files_with_suffix",
    "folders",
    "identity",
    "image_files",
    "image_size",
    "ingest_root",
    "is_image",
    "load_adapter",
    "need_files",
    "number",
    "read_text",
    "walk",
    "whole",
    "xywh_corners",
]

_MODULES = {
    "adapters.protocol": ("Adapter", "Layout", "Unit", "adapter_names", "load_adapter"),
    "catalog": ("Catalog", "Dataset"),
    "errors": ("CatalogError",),
    "files": (
        *("NameLookup", "files_with_suffix", "folders", "image_files", "is_image", "need_files"),
        *("read_text", "walk"),
    ),
    "ids": ("identity", "number", "whole"),
    "images": ("image_size",),
    "ingest": ("ingest_root",),
    "rows": ("Rows", "xywh_corners"),
    "schema": ("EXCLUDED", "INVALID", "SCOPE_SEQUENCE"),
    "snapshot": ("Snapshot",),
    "views": ("View",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
