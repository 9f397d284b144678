"""What is wrong with a config, in words that say what to write: pydantic's problems, one line each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from data_catalog.suggestions import did_you_mean, near_names

_WRITE = {
    "tuple_type": "write a list such as [1, 2]",
    "list_type": "write a list such as [1, 2]",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "string_type": "write text; quote it if it looks like another type",
    "path_type": "write a path",
    "model_type": "write its fields below it as NAME: VALUE",
    "model_attributes_type": "write its fields below it as NAME: VALUE",
    "dict_type": "write names and values below it as NAME: VALUE",
}
"""What to do about a problem, by pydantic's name for it."""

_SCALARS = ("str", "int", "float", "bool")
_LISTS = ("tuple[", "list[")
"""Ends of the places of a value that might be any of these: one problem, told once."""

_NAMED = 3
"""Overrides to name, where any of them may be the cause."""

_Place = tuple[int | str, ...]


@dataclass(frozen=True)
class Problem:
    """A field, as it is written after `--set`, and what is wrong with it."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text

    def blamed_on(self, file: str, overrides: Iterable[str]) -> str:
        """The problem with where it was made: the overrides of that field, else all, else the file."""
        overrides = tuple(overrides)
        names = {override: override.partition("=")[0] for override in overrides}
        exact = [override for override, name in names.items() if name == self.field]
        if exact:
            return f"--set {self}"
        near = [
            override
            for override, name in names.items()
            if _within(self.field, name) or _within(name, self.field)
        ]
        if len(near or overrides) > _NAMED:
            return f"{file} with {len(overrides)} changes by --set: {self}"
        if overrides:
            return f"--set {', '.join(near or overrides)}: {self}"
        return f"{file}: {self}"


def _within(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.")


def explain_problems(
    error: ValidationError,
    model: type[BaseModel],
    hints: Mapping[str, str] | None = None,
    *,
    listing: str | None = None,
) -> list[Problem]:
    """All problems of a config of that model, with the nearest known name for a typo.

    `hints` say what to do about missing and unknown fields that need more than that; the command `listing`
    lists the known fields of a section.
    """
    hints = hints or {}
    found: dict[str, Problem] = {}
    problems = error.errors()
    places = [problem["loc"] for problem in problems]
    for problem in problems:
        place: _Place = problem["loc"]
        if problem["type"] == "too_short" and any(each[: len(place)] == place != each for each in places):
            continue  # only because the entries that have problems are not counted
        is_one_of_several = len(place) > 1 and _is_alternative(place[-1])
        if is_one_of_several:
            place = place[:-1]
            has_list = any(each[: len(place)] == place and _is_list(each[-1]) for each in places)
        field = ".".join(map(str, place))
        if problem["type"] == "extra_forbidden":
            near = _suggestion(place, model)
            if not near and listing is not None:
                near = f"; to list the known ones: {' '.join([listing, *map(str, place[:-1][:1])])}"
            text = hints.get(field) or f"unknown field{near}"
        elif problem["type"] == "missing":
            text = hints.get(field, "this field is missing")
        elif is_one_of_several:
            may_be = "text, or a list of words" if has_list else "text, a number, true or false"
            text = f"write {may_be}{_given(problem.get('input'))}"
        else:
            text = explain_value(problem)
        found.setdefault(f"{field}: {text}", Problem(field, text))
    return list(found.values())


def _is_alternative(end: int | str) -> bool:
    return end in _SCALARS or _is_list(end)


def _is_list(end: int | str) -> bool:
    return isinstance(end, str) and end.startswith(_LISTS)


def explain_value(problem: Any) -> str:
    """What is wrong with a value, and what was given; `problem` is one of pydantic's `errors()`."""
    said = _WRITE.get(problem["type"])
    if problem["type"] == "literal_error":
        said = f"choose {problem['ctx']['expected']}"
    if said is None:
        said = re.sub(r"^Input should be ", "must be ", problem["msg"].removeprefix("Value error, "))
        said = re.sub(
            r"^(Tuple|List|Dictionary) should have at least (\d+) items? after validation, not \d+",
            r"give at least \2",
            said,
        )
    said, value = said.removesuffix("."), problem.get("input")
    if value is None and problem["type"] in ("model_type", "model_attributes_type"):
        said += ", or {} for the defaults"
    of_a_section = problem["type"] == "value_error" and isinstance(value, Mapping)
    is_said = isinstance(value, str) and repr(value) in said
    return said if of_a_section or is_said else said + _given(value)


def _given(value: Any) -> str:
    if isinstance(value, str | int | float):
        return f" (given: {value!r})"
    if isinstance(value, Mapping):
        return " (given: names with values)"
    if isinstance(value, list | tuple):
        return " (given: a list)"
    return " (given: nothing)" if value is None else ""


def _suggestion(place: _Place, model: type[BaseModel]) -> str:
    """A near name in the same section, else where else in the config a field has that name or one near it."""
    inside: type[BaseModel] = model
    for part in place[:-1]:
        field = inside.model_fields.get(part) if isinstance(part, str) else None
        inside = next(_models(field.annotation), inside) if field is not None else inside
    word = str(place[-1])
    here = did_you_mean(word, inside.model_fields)
    if here:
        return here
    paths = {path.rpartition(".")[2]: path for path in reversed(list(_paths(model)))}
    elsewhere = [paths[name] for name in near_names(word, paths)]
    return f"; did you mean {elsewhere[0]!r}?" if elsewhere else ""


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields that are not in a list or below a name."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a field's type, however deep: X | None, tuple[X, ...], dict[str, X]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)
