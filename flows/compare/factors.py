"""Factors: the groups into which differences fall, and settings between A and B that take some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from flows.compare.history import History, TrainedView
from flows.plan.changes import Change, changed_fields, is_seed, with_field

Grain = Literal["fields", "sections", "data together", "recipes together"]
"""How finely differences are told apart. `fields` has a factor for each dataset, for each field of re-ID,
which is cheap to train again from cached features, and for each other section; the others have fewer."""
GRAINS: tuple[Grain, ...] = ("fields", "sections", "data together", "recipes together")

_SECTIONS = {
    "detector": "detector recipe",
    "features": "features and ROI",
    "roi": "features and ROI",
    "reid": "re-ID recipe",
    "detections": "evaluation recipe",
    "gallery": "evaluation recipe",
    "evaluation": "evaluation recipe",
}
_MODEL = ("detector", "roi", "features", "reid")
"""The sections that a trained model stands for where it is pinned."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A group of differences that is taken from B or left as in A, by its title. `changes` are its fields,
    `datasets` are those whose data it is, and `is_model` says that it is the trained model as a whole."""

    title: str
    changes: tuple[Change, ...] = ()
    datasets: tuple[str, ...] = ()
    is_model: bool = False


@dataclass(frozen=True)
class RunSettings:
    """One point between A and B: recipes, the snapshot of each dataset, and the views that are trained on.

    `model` is the side whose trained model is pinned; None where models are trained.
    """

    recipes: Mapping[str, Any]
    snapshots: Mapping[str, str]
    entries: tuple[TrainedView, ...]
    model: History | None = None

    @classmethod
    def of(cls, history: History, tests: Sequence[str], *, model_as_it_is: bool) -> RunSettings:
        """The settings that led to a side's results in these tests."""
        recipes = history.settings()
        recipes["evaluation"] = {name: recipes["evaluation"][name] for name in tests}
        entries = () if model_as_it_is else tuple(history.entries())
        used = {*tests, *(entry.dataset for entry in entries)}
        snapshots = {name: each for name, each in history.snapshots.items() if name in used}
        if not model_as_it_is:
            return cls(recipes, snapshots, entries)
        others = {name: value for name, value in recipes.items() if name not in _MODEL}
        dtype = {name: value for name, value in recipes["features"].items() if name == "dtype"}
        return cls({**others, "features": dtype}, snapshots, (), history)


def factors_between(before: RunSettings, after: RunSettings, grain: Grain) -> list[Factor]:
    """What differs, in the order of the stages: data, detector, features, re-ID, evaluation; seeds last."""
    datasets = _differing_datasets(before, after)
    found = [Factor(f"data of {dataset}", datasets=(dataset,)) for dataset in datasets]
    if datasets and grain not in ("fields", "sections"):
        found = [Factor(f"data of {', '.join(datasets)}", datasets=tuple(datasets))]
    if before.model is not after.model:
        found.append(Factor("trained model", is_model=True))
    changes: dict[str, list[Change]] = {}
    for each in changed_fields(before.recipes, after.recipes):
        changes.setdefault(_title(each, grain), []).append(each)
    titles = [*dict.fromkeys(_SECTIONS.values())]
    ordered = sorted(changes, key=lambda title: _place(title, titles))
    return [*found, *(Factor(title, tuple(changes[title])) for title in ordered)]


def mixed(before: RunSettings, after: RunSettings, taken: Sequence[Factor]) -> RunSettings:
    """A's settings with the factors that are taken from B: all of them give B's, none A's."""
    recipes: Any = before.recipes
    snapshots, of_b, model = dict(before.snapshots), set[str](), before.model
    for factor in taken:
        for change in factor.changes:
            recipes = with_field(recipes, change.path, change.new)
        if factor.is_model:
            model = after.model
        for dataset in factor.datasets:
            of_b.add(dataset)
            snapshots.pop(dataset, None)
            if dataset in after.snapshots:
                snapshots[dataset] = after.snapshots[dataset]
    differing = set(_differing_datasets(before, after))
    kept = [each for each in before.entries if each.dataset not in of_b]
    new = [each for each in after.entries if each.dataset in of_b]
    first = after.entries if differing and differing <= of_b else before.entries
    order = {(each.place, each.dataset): number for number, each in reversed([*enumerate(first)])}
    entries = sorted([*kept, *new], key=lambda each: order.get((each.place, each.dataset), len(order)))
    return replace(before, recipes=recipes, snapshots=snapshots, entries=tuple(entries), model=model)


def _differing_datasets(before: RunSettings, after: RunSettings) -> list[str]:
    """Datasets with another snapshot, or of which other views are trained on."""
    found = []
    for dataset in sorted(before.snapshots.keys() | after.snapshots.keys()):
        old, new = (
            (each.snapshots.get(dataset), [one for one in each.entries if one.dataset == dataset])
            for each in (before, after)
        )
        if old != new:
            found.append(dataset)
    return found


def _title(change: Change, grain: Grain) -> str:
    if is_seed(change.name):
        return change.name if grain == "fields" else "seeds"
    if grain == "recipes together":
        return "recipes"
    if grain == "fields" and change.path[0] == "reid":
        return ".".join(change.path[:2])
    return _SECTIONS[change.path[0]]


def _place(title: str, titles: Sequence[str]) -> tuple[int, str]:
    """Where a factor stands; a field of re-ID stands where that section does."""
    if title == "seeds" or is_seed(title):
        return len(titles), title
    section = _SECTIONS["reid"] if title.partition(".")[0] == "reid" else title
    return (titles.index(section) if section in titles else 0), title
