"""What a tracker is, what it is told, and how one is found by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol

from data_catalog.suggestions import did_you_mean

ENTRY_POINTS = "personsearch.trackers"

Status = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True)
class TrackedRun:
    """A run as it begins.

    Parameters
    ----------
    name
        Its name, as `personsearch status` shows it.
    config
        The config's file name.
    store
        The store that keeps its artifacts.
    params
        Every field of the config that may change results, by its path: `reid.sampling.identities`.
    """

    name: str
    config: str
    store: str
    params: Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """A metric of a training by step; `values` are finite."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True)
class TrackedStage:
    """A stage whose artifact is there, built by this run or before it.

    Parameters
    ----------
    name
        Its name in the plan, such as `evaluation:prw`.
    artifact
        `kind/KEY`, as `personsearch store show` takes it.
    built
        Whether this run built it.
    metrics
        Numbers of its manifest, such as `mAP`.
    curves
        Of a training, its history: read when they are asked for.
    """

    name: str
    artifact: str
    built: bool
    metrics: Mapping[str, float]
    curves: Callable[[], Iterator[Curve]]


class Tracker(Protocol):
    """A sink for one run. Its methods are called one after the other, in the flow's process.

    Whatever they raise costs a warning, and the tracker hears no more of this run; so does a call that takes
    longer than `flows.tracking.running.LIMIT_SECONDS`.

    Other packages offer theirs as entry points `personsearch.trackers`, called with the config's options.

    Examples
    --------
    >>> class Printed:
    ...     def start(self, run):
    ...         print("began", run.config)
    ...     def stage(self, stage):
    ...         print(stage.name, dict(stage.metrics))
    ...     def end(self, status, report):
    ...         print(status)
    """

    def start(self, run: TrackedRun) -> None:
        """A run begins, with the stages of its plan ahead."""

    def stage(self, stage: TrackedStage) -> None:
        """A stage is there."""

    def end(self, status: Status, report: Path | None) -> None:
        """The run is over; `report` is its page, if it has one."""


def load_tracker(name: str) -> Callable[..., Tracker]:
    """What an installed package offers by that name. Raises ValueError for an unknown name."""
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        known = ", ".join(sorted(points)) or "none"
        raise ValueError(
            f"there is no tracker {name!r}{did_you_mean(name, points) or f'; there is: {known}'}"
        )
    loaded: Callable[..., Tracker] = points[name].load()
    return loaded


def require_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an unknown tracker, or for options that it does not take.

    A tracker that is installed and cannot be imported costs its run a warning, later.
    """
    try:
        loaded = load_tracker(name)
    except ValueError:
        raise
    except Exception:  # third-party code may raise anything; the run tells it
        return
    try:
        inspect.signature(loaded).bind(**options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(loaded).parameters) or "none"
        raise ValueError(f"tracker {name!r}: options: {error}; it takes: {takes}") from error
