"""`ingest`: a dataset's root in its native format -> a snapshot, the validated Parquet tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.hash_cache import HashCache
from data_catalog.ingest import Fingerprint, fingerprint, ingest
from data_catalog.schema import TABLES
from data_catalog.snapshot import ROW_GROUP, Snapshot
from data_catalog.views import digest_rows
from flows.config import Config
from flows.stages.base import Made, Stage, StageContext
from flows.stages.names import ingest_name
from storage.digests import digest_json, digest_parts

VERSION = 1


def stage(config: Config, dataset: str) -> Stage:
    """The stage of one dataset. Its root is fingerprinted here: a few stats when nothing changed."""
    source = config.datasets[dataset]
    if not source.root.is_dir():
        raise CatalogError(f"datasets.{dataset}.root: there is no folder {source.root}")
    recipe: dict[str, Any] = {"adapter": source.adapter, "dataset": dataset, "options": _text(source.options)}
    options = {"root": str(source.root), "hashes": _hash_cache_path(config), "dask": config.run.dask}
    found = _fingerprint(recipe, options)
    recipe["adapter_version"] = load_adapter(source.adapter).version
    return Stage(
        name=ingest_name(dataset),
        kind="ingest",
        version=VERSION,
        recipe=recipe,
        maker="flows.stages.ingest:make",
        fixed_inputs={"root": found.digest},
        options=options,
    )


def make(context: StageContext) -> Made:
    """Read the root into the work area; a table that an earlier try left is written again."""
    recipe, options = context.recipe, context.options
    found = _fingerprint(recipe, options)
    counts = ingest(
        Path(options["root"]),
        load_adapter(recipe["adapter"]),
        context.work,
        found,
        name=recipe["dataset"],
        options=recipe["options"],
        dask_address=options["dask"],
        progress=context.progress,
    )
    return Made(content_digest(context.work), {"counts": counts})


def content_digest(snapshot: Path) -> str:
    """Digest over the rows of all tables, read in blocks; where and when it was made is not in it."""
    tables = Snapshot(snapshot)
    parts = {name: _digest_blocks(tables, name) for name in TABLES if name != "datasets"}
    return digest_parts(parts)


def _digest_blocks(tables: Snapshot, name: str) -> str:
    batches = tables.dataset(name).to_batches(batch_size=ROW_GROUP)
    return digest_json([digest_rows(pa.Table.from_batches([batch])) for batch in batches if len(batch)])


def _fingerprint(recipe: dict[str, Any], options: Any) -> Fingerprint:
    adapter = load_adapter(recipe["adapter"])
    return fingerprint(Path(options["root"]), adapter, recipe["options"], HashCache(Path(options["hashes"])))


def _hash_cache_path(config: Config) -> str:
    return str(Path(config.store) / ".cache" / "hashes.sqlite")


def _text(options: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in options.items()}
