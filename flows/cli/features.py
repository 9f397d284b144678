"""`personsearch features`: inspect a feature store, verify its digests, export rows."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from flows.cli.json_file import Json, to_write, write_json
from flows.cli.options import ConfigsStore, Store, artifact_named, chosen_store, default_store
from flows.config.request import RunRequest
from flows.errors import ConfigError, missing
from flows.run.planning import plan_config
from flows.run.running import run_config
from flows.wording import counted
from storage.errors import StorageError
from storage.feature_store import (
    DamagedShard,
    export_rows,
    open_features,
    remove_shards,
    summarise_features,
    verify_features,
)
from storage.listing import Entry
from storage.opening import open_store
from storage.space import in_units
from storage.store import Store as ArtifactStore
from storage.urls import is_remote

app = typer.Typer(no_args_is_help=True, help="Cached features: show, verify, export, statistics.")

MADE_BY_FEATURES_STAGE = "features"

Where = Annotated[
    str,
    typer.Argument(metavar="FEATURES", help="A folder, or an artifact of the store: features/KEY or KEY."),
]


@app.command()
def show(where: Where, store: Store = None) -> None:
    """Show the shape, size, shards, source and rows per identity of a feature store.

    Example: personsearch features show features/3fa9c1 --store STORE
    """
    summary = summarise_features(_folder(where, _held(where, store)))
    shape = " x ".join(map(str, summary.shape))
    missing = f", {len(summary.missing_shards)} missing" if summary.missing_shards else ""
    typer.echo(f"{summary.path}")
    typer.echo(f"{shape} {summary.dtype}, {in_units(summary.array_bytes)}")
    packing = "compressed" if summary.compressed else "uncompressed"
    if summary.codec is not None:
        packing += f", {_codec(summary.codec)}"
    typer.echo(
        f"{counted(summary.n_shards, 'shard')} of {summary.rows_per_shard} rows{missing}, "
        f"{in_units(summary.stored_bytes)} on disk, {packing}"
    )
    typer.echo(f"content digest {summary.content_digest or 'none: unfinished'}")
    for name, value in summary.made_by.items():
        typer.echo(f"{name}: {json_format.dumps(value, default=str)}")
    typer.echo(
        f"{len(summary.identities)} identities, {summary.rows_without_identity} rows without identity"
        + _most_rows(summary.identities)
    )


@app.command()
def verify(
    where: Where,
    store: ConfigsStore = None,
    mend: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="Rebuild the damaged shards, and only these, with this config."),
    ] = None,
) -> None:
    """Verify the digest of every row and name damaged shards. Exits with status 2 if there are any.

    Example: personsearch features verify features/3fa9c1 --mend configs/demo.yaml
    """
    held = _held(where, store, mend)
    folder = _folder(where, held)
    damaged = verify_features(folder)
    for each in damaged:
        rows = f"rows {each.rows.start} to {each.rows.stop - 1}"
        typer.echo(f"shard {each.shard}, {rows}: {each.reason}")
    if damaged and held is not None:
        opened, entry = held
        opened.distrust(entry.kind, entry.key)
        if mend is not None:
            _mend(opened, entry, mend, damaged)
            damaged = verify_features(folder)
    if damaged:
        raise StorageError(f"damaged: {counted(len(damaged), 'shard')}; rebuild with --mend CONFIG")
    typer.echo("all shards are intact")


@app.command()
def export(
    where: Where,
    out: Annotated[
        Path,
        typer.Option(
            callback=to_write("--out"),
            help="File to write: .npz, .safetensors, .parquet, .arrow, or .tar for WebDataset.",
        ),
    ],
    rows: Annotated[str, typer.Option(help="Rows to export, such as 0:100 or 3,17,99 (default: all).")] = ":",
    store: Store = None,
) -> None:
    """Export rows and their index entries to one file for other programs.

    Tables and .tar are written in parts, so all rows of a large store fit.

    Example: personsearch features export features/3fa9c1 --rows 0:100 --out rows.npz
    """
    with open_features(_folder(where, _held(where, store)), memory_budget=0) as reader:
        chosen = parse_rows(rows, reader.shape[0])
        try:
            export_rows(reader, chosen, out)
        except IndexError as error:
            raise ConfigError(f"--rows {rows}: {error}") from error
    typer.echo(f"wrote {counted(len(chosen), 'row')} to {out}")


@app.command()
def stats(
    where: Where,
    store: Store = None,
    json: Json = None,
) -> None:
    """Show channel means, sparsity, dead channels and distances between identities; runs out of core.

    Example: personsearch features stats features/3fa9c1 --store STORE
    """
    from storage.feature_store.statistics import feature_statistics

    found = feature_statistics(_folder(where, _held(where, store)))
    figures = asdict(found) | {"sparsity": found.sparsity, "distance_ratio": found.distance_ratio}
    write_json(json, figures, default=_plain)
    for name, value in figures.items():
        typer.echo(f"{name}: {_summary(value)}")


def parse_rows(text: str, n_rows: int) -> np.ndarray:
    """Parse `start:stop`, `start:stop:step` or `3,17,99`. Raises ConfigError for anything else."""
    try:
        if ":" in text:
            return np.arange(n_rows)[slice(*(int(part) if part else None for part in text.split(":")))]
        return np.array([int(part) for part in text.split(",")])
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"--rows takes a range or a list, such as 0:100 or 3,17,99; got {text!r}"
        ) from error


def _mend(opened: ArtifactStore, entry: Entry, config: Path, damaged: list[DamagedShard]) -> None:
    if entry.kind != MADE_BY_FEATURES_STAGE:
        raise ConfigError(
            f"{entry.name} is not built shard by shard: run `store invalidate` on it, then run again"
        )
    request = RunRequest(config=config, store=str(opened), until=MADE_BY_FEATURES_STAGE)
    planned = {stage["key"]: stage["stage"] for stage in plan_config(request).stages}
    if entry.key not in planned:
        raise ConfigError(f"{config} does not build {entry.name}: pass the config that it was built from")
    work = opened.reopen(entry.kind, entry.key)
    remove_shards(work, [each.shard for each in damaged])
    run_config(request.model_copy(update={"until": planned[entry.key]})).raise_error()


def _held(where: str, store: str | None, config: Path | None = None) -> tuple[ArtifactStore, Entry] | None:
    """The artifact `where` and its store; None if `where` is a folder or the URL of one."""
    if store is not None or config is not None:
        place = chosen_store(store, config)
    elif is_remote(where) or Path(where).is_dir():
        return None
    elif (found := default_store()) is not None:
        place = found
    else:
        raise ConfigError(f"{missing(where, 'folder')}; if it is an artifact, name its store (--store)")
    opened = open_store(place)
    return opened, artifact_named(opened, where)


def _folder(where: str, held: tuple[ArtifactStore, Entry] | None) -> str | Path:
    """The folder or URL itself, or the local path of the store's artifact."""
    return where if held is None else held[0].local_path(held[1].kind, held[1].key)


def _codec(codec: Mapping[str, Any]) -> str:
    """Such as `int8 of 64 of 256 channels`."""
    every = codec["row_shape"][0]
    of = f"all {every}" if codec["channels"] is None else f"{codec['channels']} of {every}"
    return f"{codec['values']} values of {of} channels"


def _most_rows(identities: Mapping[tuple[str, str], int]) -> str:
    most = [f"{dataset}/{person} {count}" for (dataset, person), count in list(identities.items())[:5]]
    return f"; most rows: {', '.join(most)}" if most else ""


def _summary(value: object) -> str:
    """A single value, or the range and mean of a per-channel value."""
    if isinstance(value, np.ndarray) and value.ndim:
        low, mean, high = value.min(), value.mean(), value.max()
        return f"{low:.4g} to {high:.4g}, mean {mean:.4g} over {len(value)} channels"
    if isinstance(value, tuple):
        return f"{len(value)}" + (f" ({', '.join(map(str, value[:10]))} ...)" if value else "")
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
