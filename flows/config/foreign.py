"""Features that another program computed: a config takes them by `features.use`, in place of a detector's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.config.raw import absolute, is_folder
from flows.errors import ConfigError
from personsearch_core.recipes import Recipe
from storage.digests import digest_file, digest_parts
from storage.errors import StorageError

AXES = (1, 3)
"""Axes of a row: C numbers, or a map of C x h x w."""
DTYPES = ("float16", "float32")
BOX_ID = "box_id"


class ForeignFeatures(Recipe):
    """A feature store of boxes, by their ids in the catalog."""

    folder: Path
    digest: str
    """Of the features and of the index, when the config was read."""
    row_shape: tuple[int, ...]
    dtype: str

    @property
    def maps(self) -> tuple[int, int, int]:
        """(C, h, w) of a row as the branch reads it; 1 x 1 for a vector."""
        channels, *sides = self.row_shape
        height, width = sides or (1, 1)
        return channels, height, width


def find_features(given: Any, folder: Path) -> ForeignFeatures:
    """The feature store that `features.use` names; relative paths are taken from `folder`.

    Raises ConfigError, which says what to do, if it is missing or unfinished, or its rows are not features.
    """
    from storage.feature_store.decoding import read_codec
    from storage.feature_store.metadata import read_layout

    if not isinstance(given, str) or not is_folder(given):
        raise ConfigError("features.use: write the folder of a feature store, such as ./features")
    place = Path(absolute(given, folder))
    try:
        layout, digest = read_layout(place), foreign_digest(place)
        rows = read_codec(place, layout) or layout
    except StorageError as error:
        raise ConfigError(f"features.use: {error}") from error
    row_shape, dtype = rows.row_shape, rows.dtype.name
    if len(row_shape) not in AXES or dtype not in DTYPES:
        raise ConfigError(
            f"features.use: {place} has rows {' x '.join(map(str, row_shape))} of {dtype}: write C numbers "
            f"or C x h x w per box, in {' or '.join(DTYPES)}"
        )
    return ForeignFeatures(folder=place, digest=digest, row_shape=row_shape, dtype=dtype)


def foreign_digest(folder: Path) -> str:
    """Of the features and of the index of a finished store. Raises StorageError when it is not one."""
    from storage.feature_store.digests import read_digests
    from storage.feature_store.index_table import read_index
    from storage.feature_store.layout import INDEX_FILE

    content = read_digests(folder).content
    try:
        columns = read_index(folder / INDEX_FILE, [BOX_ID]).column_names
    except FileNotFoundError:
        columns = []
    if BOX_ID not in columns:
        raise StorageError(
            f"{folder} has no {INDEX_FILE} with a column {BOX_ID!r}: write it with write_index"
        )
    return digest_parts({"features": content, "index": digest_file(folder / INDEX_FILE)})


def refuse_others(raw: Mapping[str, Any]) -> None:
    """Raise ConfigError for sections that have no meaning beside `features.use`."""
    section = raw["features"]
    others = [name for name in section if name != "use" and section[name] is not None and name != "boxes"]
    if others:
        raise ConfigError(
            f"features: `use` takes features unchanged: remove {', '.join(others)} (only `boxes` may stand "
            "beside it)"
        )
    if raw.get("detector") is not None:
        raise ConfigError(
            "detector: features.use takes features from elsewhere, so there is no detector: remove it, or "
            "write detector: null"
        )
    for name in ("promote", "speed", "roi"):
        if raw.get(name) is not None:
            raise ConfigError(
                f"{name}: it has no effect on features that are taken from elsewhere: remove it"
            )
    reid = raw.get("reid")
    if not isinstance(reid, Mapping) or reid.get("use") is not None:
        raise ConfigError("features.use: give a reid section that trains a branch on these features")
    branch = reid.get("branch") or {}
    if not isinstance(branch, Mapping) or branch.get("initial_weights") != "random":
        raise ConfigError(
            "reid.branch.initial_weights: write random: on features from elsewhere a branch is pooling and "
            "an embedding alone, which start from no network's weights"
        )
