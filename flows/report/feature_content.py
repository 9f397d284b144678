"""A summary of the cached features. Statistics of a feature store are cached by its content digest."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from flows.plan.memo import Memo
from flows.report.content import Facts, Figure
from flows.report.plots import histogram
from storage.feature_store import open_features
from storage.feature_store.statistics import feature_statistics
from storage.store import Artifact

log = logging.getLogger(__name__)

_SIMILAR = 0.9
"""Ratio of distances above which the features barely distinguish people."""


@dataclass(frozen=True)
class Remembered:
    """The statistics that the page shows; `channel_zeros` has one entry per channel."""

    n_rows: int
    row_shape: tuple[int, ...]
    dtype: str
    n_identities: int
    sparsity: float
    n_dead_channels: int
    within_identity: float | None
    between_identity: float | None
    channel_zeros: tuple[float, ...]


def describe_features(features: Artifact) -> Facts:
    """Facts about the feature store, the zeros per channel, and what they mean for training."""
    found = remembered_statistics(features)
    ratio = None
    if found.within_identity is not None and found.between_identity:
        ratio = found.within_identity / found.between_identity
    shape = " x ".join(str(length) for length in found.row_shape)
    facts = [
        ("rows", f"{found.n_rows:,}"),
        ("shape of a row", f"{shape} ({found.dtype})"),
        ("identities", f"{found.n_identities:,}"),
        ("zeros", f"{found.sparsity:.1%}"),
        ("dead channels", f"{found.n_dead_channels:,} of {len(found.channel_zeros):,}"),
        ("squared distance within an identity", _number(found.within_identity)),
        ("squared distance between identities", _number(found.between_identity)),
        ("within / between", _number(ratio)),
    ]
    zeros = np.array(found.channel_zeros)
    plot = histogram(zeros, "zeros per channel, %", "channels")
    figure = Figure("Sparsity by channel", plot, "A channel at 100 % is dead: it is zero for every person.")
    return Facts(facts, [figure], _verdict(ratio))


def remembered_statistics(features: Artifact) -> Remembered:
    """Statistics of a features artifact, computed out of core and once per content."""
    memo = Memo(features.path.parents[1], "statistics", {"content": features.content_digest})
    answer = memo.read()
    try:
        if answer is not None:
            return TypeAdapter(Remembered).validate_json(answer)
    except ValidationError as error:
        log.info("%s was written by another version and is rebuilt: %s", memo.path, error)
    with open_features(features.path) as reader:
        row_shape, dtype = reader.shape[1:], reader.dtype
    statistics = feature_statistics(features.path)
    found = Remembered(
        n_rows=statistics.n_rows,
        row_shape=tuple(row_shape),
        dtype=str(dtype),
        n_identities=statistics.n_identities,
        sparsity=statistics.sparsity,
        n_dead_channels=len(statistics.dead_channels),
        within_identity=statistics.within_identity,
        between_identity=statistics.between_identity,
        channel_zeros=tuple(statistics.channel_zeros.tolist()),
    )
    memo.write(json.dumps(asdict(found)))
    return found


def _verdict(ratio: float | None) -> str:
    if ratio is None:
        return "No person has two rows, or there is only one person, so distances cannot be compared."
    if ratio == 0:
        return "All rows of the same person are identical."
    if ratio > _SIMILAR:
        return "Without the branch, rows of the same person are barely closer to each other than to others."
    return (
        f"Without the branch, rows of the same person are {1 / ratio:.1f} times closer to each other than to "
        "others (squared distances)."
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
