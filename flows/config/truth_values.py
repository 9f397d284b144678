"""`true` and `false` where a config wants a number: pydantic would take them for 1 and 0."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from flows.config.problems import Problem


def truth_values_for_numbers(raw: Any, annotation: Any, place: tuple[str, ...] = ()) -> Iterator[Problem]:
    """A problem for each `true` or `false` of a raw config whose field holds numbers and no truth values."""
    may_be = list(_alternatives(annotation))
    if isinstance(raw, bool):
        if {int, float} & set(may_be) and bool not in may_be:
            yield Problem(".".join(place), f"write a number (given: {str(raw).lower()})")
    elif isinstance(raw, dict):
        for name, value in raw.items():
            for inside in filter(None, (_of_name(each, name) for each in may_be)):
                yield from truth_values_for_numbers(value, inside, (*place, str(name)))
    elif isinstance(raw, list):
        items = [get_args(each)[0] for each in may_be if get_origin(each) in (tuple, list)]
        for at, value in enumerate(raw):
            for inside in items:
                yield from truth_values_for_numbers(value, inside, (*place, str(at)))


def _of_name(annotation: Any, name: Any) -> Any:
    """The type of what a mapping has under a name; None if that is not known."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(name)
        return None if field is None else field.annotation
    return None


def _alternatives(annotation: Any) -> Iterator[Any]:
    """What a value may be: the members of unions, without the conditions on them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation
