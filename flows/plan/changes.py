"""Which fields differ between two recipes or configs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final


class _NotGiven:
    """What a field that only the other side has holds on this one."""

    def __repr__(self) -> str:
        return "not given"


NOT_GIVEN: Final = _NotGiven()


@dataclass(frozen=True)
class Change:
    """A field that differs. `path` leads to it; in a list it has positions, as `--set` writes them."""

    path: tuple[str, ...]
    old: Any
    new: Any

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.name} {self.old!r} -> {self.new!r}"


def changed_fields(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[Change]:
    """Every field that differs, by name; lists of another length differ as a whole."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            yield from changed_fields(old.get(name, NOT_GIVEN), new.get(name, NOT_GIVEN), (*path, name))
    elif _are_sections(old) and _are_sections(new) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from changed_fields(one, other, (*path, str(number)))
    elif old is NOT_GIVEN or new is NOT_GIVEN or old != new:
        yield Change(path, old, new)


def with_field(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of nested mappings and lists with another value at the path; NOT_GIVEN removes the field."""
    if not path:
        return value
    first, *rest = path
    if isinstance(tree, list):
        place = int(first)
        return [*tree[:place], with_field(tree[place], tuple(rest), value), *tree[place + 1 :]]
    fields = dict(tree)
    changed = with_field(fields.get(first, {}), tuple(rest), value)
    if changed is NOT_GIVEN:
        fields.pop(first, None)
    else:
        fields[first] = changed
    return fields


def is_seed(name: str) -> bool:
    """Whether a field is the start of random numbers."""
    return name.rpartition(".")[2] == "seed"


def _are_sections(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, Mapping) for each in value)
