"""Objectives of other packages, found by the entry points `personsearch.objectives`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from personsearch_core.errors import PersonSearchError
from personsearch_core.losses.objective import ReidObjective
from personsearch_core.losses.options import built, check_names, parameters

ENTRY_POINTS = "personsearch.objectives"


def load_objective(name: str) -> Callable[..., Any]:
    """What an entry point offers: called with `identities`, `dim` and options, it gives a `ReidObjective`.

    Raises PersonSearchError if no or more than one package offers the name, or if it cannot be loaded.
    """
    points: set[EntryPoint] = set(entry_points(group=ENTRY_POINTS, name=name))
    if len({point.value for point in points}) != 1:
        offers = ", ".join(sorted(point.value for point in points)) or "no package"
        raise PersonSearchError(
            f"objective {name!r} must be offered by one installed package, not by {offers}"
        )
    point = points.pop()
    try:
        loaded: Callable[..., Any] = point.load()
    except Exception as error:  # third-party code may raise anything when it is imported
        raise PersonSearchError(
            f"objective {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return loaded


def build_third_party(name: str, options: dict[str, Any] | None, identities: int, dim: int) -> ReidObjective:
    """Build an objective of another package. Raises PersonSearchError, which says what to write."""
    loaded = load_objective(name)
    check_names(options or {}, parameters(loaded).keys() - {"identities", "dim"}, name)
    objective = built(
        loaded, {**(options or {}), "identities": identities, "dim": dim}, f"objective {name!r}"
    )
    if not isinstance(objective, ReidObjective):
        raise PersonSearchError(
            f"objective {name!r} must be a ReidObjective, not a {type(objective).__name__}"
        )
    return objective


def objective_version(name: str) -> int:
    """The version that the objective states, which keys its trainings."""
    return int(getattr(load_objective(name), "version", 1))
