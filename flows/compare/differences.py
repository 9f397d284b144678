"""What differs between two results: data, recipes, code, machine, and the results themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flows.compare.data import DataDifference, data_differences
from flows.compare.history import History, TrainedView
from flows.compare.results import TestDifference, compare_tests
from flows.config.trained_on import TRAINED_ON, VIEWS
from flows.plan.changes import changed_fields, is_seed
from storage.lineage import RECORD
from storage.manifest import ROWS, Manifest
from storage.store import Store

_NOT_TOLD = (RECORD, VIEWS, TRAINED_ON, ROWS, "roi")
"""Of what built an artifact: told elsewhere, or no difference in itself."""
_CODE = ("source", "libraries", "python", "version", "objective_versions")
_MACHINE = ("host", "machine", "cpus", "threads", "device", "processor")


@dataclass(frozen=True)
class FieldDifference:
    """A field, or a fact on how stages were built, with its values as text; `stages` share it."""

    name: str
    before: str
    after: str
    stages: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Difference:
    """All that differs. `fields` are those of recipes, seeds, code and machine, by these words."""

    before: History
    after: History
    data: Sequence[DataDifference]
    fields: Mapping[str, Sequence[FieldDifference]]
    tests: Sequence[TestDifference]

    @property
    def is_same(self) -> bool:
        """Whether both sides are the same evaluations."""
        return all(test.before.key == test.after.key for test in self.tests)

    def as_data(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "a": _side(self.before),
            "b": _side(self.after),
            "same": self.is_same,
            "data": [asdict(each) for each in self.data],
            **{part: [asdict(each) for each in fields] for part, fields in self.fields.items()},
            "tests": [each.as_data() for each in self.tests],
        }


def difference(before: History, after: History, store: Store, moved: int) -> Difference:
    """Compare two results of a store; `moved` queries are named per test.

    Raises ConfigError if they have no test in common.
    """
    fields, facts = _fields(before, after), _facts(before, after)
    parts = {
        "recipes": [each for each in fields if not is_seed(each.name)],
        "seeds": [each for each in fields if is_seed(each.name)],
        "code": [each for each in facts if each.name.partition(".")[0] in _CODE],
        "machine": [each for each in facts if each.name.partition(".")[0] in _MACHINE],
    }
    tests = compare_tests(before.side, after.side, store, moved)
    return Difference(before, after, data_differences(before, after), parts, tests)


def shown(value: Any) -> str:
    """A value as a config writes it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _side(history: History) -> dict[str, Any]:
    side = history.side
    return {
        "given": side.given,
        "is": side.said,
        "evaluations": {name: each.name for name, each in side.evaluations.items()},
        "config": None if side.config is None else str(side.config),
        "stages": {name: each.name for name, each in history.stages.items()},
        "gone": history.gone,
    }


def _fields(before: History, after: History) -> list[FieldDifference]:
    """Fields of the recipes, and of the views that are trained on."""
    found = [
        FieldDifference(each.name, shown(each.old), shown(each.new), (_stage_of(each.path),))
        for each in changed_fields(before.settings(), after.settings())
    ]
    old, new = (_by_view(each.entries()) for each in (before, after))
    for key in sorted(old.keys() | new.keys()):
        place, dataset, number = key
        name = f"{place}[{dataset}]" + (f"[{number}]" if number else "")
        stages = (_stage_of((place,)),)
        if key not in new:
            found.append(FieldDifference(name, "taken", "not taken", stages))
        elif key not in old:
            found.append(FieldDifference(name, "not taken", "taken", stages))
        else:
            found += [
                FieldDifference(f"{name}.{each.name}", shown(each.old), shown(each.new), stages)
                for each in changed_fields(old[key], new[key])
            ]
    return found


def _by_view(entries: Sequence[TrainedView]) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for entry in entries:
        number = sum(key[:2] == (entry.place, entry.dataset) for key in found)
        found[entry.place, entry.dataset, number] = entry.fields
    return found


def _stage_of(path: Sequence[str]) -> str:
    """The stage that a field of a config belongs to."""
    first = path[0].partition(".")[0]
    return "features and detections" if first == "roi" else first


def _facts(before: History, after: History) -> list[FieldDifference]:
    """Versions of stages and packages, and what of the machine counts, each with the stages that share it."""
    stages: dict[tuple[str, str, str], list[str]] = {}
    for name in before.stages.keys() & after.stages.keys():
        one, other = before.stages[name], after.stages[name]
        if one.key == other.key and one.created == other.created:
            continue
        for each in changed_fields(_made_by(one), _made_by(other)):
            stages.setdefault((each.name, shown(each.old), shown(each.new)), []).append(name)
    return [FieldDifference(*fact, tuple(sorted(names))) for fact, names in sorted(stages.items())]


def _made_by(manifest: Manifest) -> dict[str, Any]:
    facts = {name: value for name, value in manifest.made_by.items() if name not in _NOT_TOLD}
    rows = manifest.made_by.get(ROWS) or {}
    computed_on = (rows.get("means") or {}).get("on", {})
    computed = {name: computed_on[name] for name in ("device", "processor") if name in computed_on}
    versions = manifest.identity.recipe.get("objective_versions", {})
    return {**facts, **computed, "version": manifest.identity.version, "objective_versions": versions}
