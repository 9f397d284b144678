"""The one parser of YAML (and so of JSON): one value per name; bounded in size, depth and aliases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

MOST_BYTES = 1 << 20
"""Of a file; the longest config of this project has 3 KB, a data.yaml of 1,000 classes 20."""
MOST_VALUES = 100_000
"""Values once all aliases are written out."""
MOST_DEPTH = 50
"""Levels of nested mappings and lists."""

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
# What the constructors of PyYAML raise where a value does not fit its tag: 2024-13-01, !!bool perhaps.
_UNFIT = (ValueError, KeyError, AttributeError, TypeError, OverflowError)


class YamlError(ValueError):
    """YAML that is damaged, ambiguous, or too large to be meant; the message says where and why."""


def parse_yaml(text: str, where: str, *, any_names: bool = False) -> Any:
    """The value of YAML text.

    Parameters
    ----------
    text
        YAML or JSON of at most `MOST_BYTES` characters.
    where
        The file or option that it was written in, for messages.
    any_names
        Whether names of mappings may be numbers and other values than text.

    Raises
    ------
    YamlError
        If it is not YAML, a name appears twice in a mapping or is not text, or the value is too deep or, its
        aliases written out, too large.
    """
    if len(text) > MOST_BYTES:
        raise YamlError(f"{where}: it is larger than {MOST_BYTES >> 20} MiB")
    try:
        loader = _Loader(text, where)
        node = loader.get_single_node()
        if node is None:
            return None
        _written_out(node, where, {})
        _check_names(node, where, any_names=any_names)
    except yaml.YAMLError as error:
        raise YamlError(f"{where}: this is not valid YAML: {_explained(error)}") from error
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise YamlError(f"{where}: this is not valid YAML: {_explained(error)}") from error
    except _UNFIT as error:
        said = f"{error}" if isinstance(error, ValueError) else "a value does not fit its !!tag"
        raise YamlError(
            f"{where}: this is not valid YAML: {on_one_line(said)}; put quotes around text that looks like a "
            "number or a date"
        ) from error


def locate(text: str, field: str) -> tuple[str, int]:
    """The part of a field's dotted name that leads somewhere, and its line, counted from 1.

    Names may hold dots. ("", 0) where not even the first is there. The text is one that `parse_yaml` takes.
    """
    node, line, rest = _Loader(text, "").get_single_node(), 0, field
    while rest and (step := _step(node, rest)) is not None:
        name, node, line = step
        rest = rest[len(name) :].removeprefix(".")
    return field.removesuffix(rest), line


def _step(node: yaml.Node | None, field: str) -> tuple[str, yaml.Node, int] | None:
    """The first name of a field in a node, its value and its line."""
    if isinstance(node, yaml.MappingNode):
        named = [(key.value, value, key) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        named = [(str(at), value, value) for at, value in enumerate(node.value)]
    else:
        return None
    fitting = [each for each in named if field == each[0] or field.startswith(f"{each[0]}.")]
    if not fitting:
        return None
    name, value, at = max(fitting, key=lambda each: len(each[0]))
    return name, value, at.start_mark.line + 1


def on_one_line(text: str) -> str:
    return " ".join(text.split())


class _Loader(yaml.SafeLoader):
    """A safe loader that stops at `MOST_DEPTH` levels, before its own recursion does."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self._where = where
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth > MOST_DEPTH:
            raise YamlError(
                f"{self._where}: more than {MOST_DEPTH} mappings or lists lie inside each other "
                f"({_line(self.peek_event())})"  # type: ignore[no-untyped-call]
            )
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _written_out(node: yaml.Node, where: str, sizes: dict[int, int | None]) -> int:
    """How many values a node stands for with all aliases written out; `sizes` are those of nodes seen."""
    known = sizes.get(id(node), 0)
    if known is None:
        raise YamlError(
            f"{where}: an alias (*) stands for something that contains it ({_line(node)}); write it out"
        )
    if known:
        return known
    sizes[id(node)] = None
    total = 1 + sum(_written_out(child, where, sizes) for child in _children(node))
    if total > MOST_VALUES:
        raise YamlError(
            f"{where}: its aliases (*) stand for more than {MOST_VALUES:,} values ({_line(node)})"
        )
    sizes[id(node)] = total
    return total


def _check_names(root: yaml.Node, where: str, *, any_names: bool) -> None:
    """Every name of a mapping stands there once, and is text unless `any_names`."""
    seen: set[int] = set()
    pending: list[tuple[str, yaml.Node]] = [("", root)]
    while pending:
        place, node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            pending += _named(node, where, place, any_names=any_names)
        else:
            pending += [(f"{place}{at}.", child) for at, child in enumerate(_children(node))]


def _named(
    node: yaml.MappingNode, where: str, place: str, *, any_names: bool
) -> Iterator[tuple[str, yaml.Node]]:
    """The values of a mapping with the prefix of what lies in them; raises YamlError for a bad name."""
    first: dict[str, yaml.Node] = {}
    for name, value in node.value:
        fits = any_names or name.tag in (_TEXT, _MERGE)
        if not fits or not isinstance(name, yaml.ScalarNode):
            shown = repr(name.value) if isinstance(name, yaml.ScalarNode) else "a list or a mapping"
            raise YamlError(
                f"{where}: {place}{shown} ({_line(name)}) is not read as text; put the name in quotes"
            )
        if name.value in first:
            hint = "name all of them in one list" if name.tag == _MERGE else "keep one"
            raise YamlError(
                f"{where}: {place}{name.value} appears twice, {_lines(first[name.value], name)}; {hint}"
            )
        first[name.value] = name
        yield f"{place}{name.value}.", value


def _line(at: Any) -> str:
    return f"line {at.start_mark.line + 1}" if at is not None else "its end"


def _lines(first: yaml.Node, second: yaml.Node) -> str:
    if first.start_mark.line != second.start_mark.line:
        return f"in lines {first.start_mark.line + 1} and {second.start_mark.line + 1}"
    columns = f"{first.start_mark.column + 1} and {second.start_mark.column + 1}"
    return f"in line {first.start_mark.line + 1}, columns {columns}"


def _explained(error: yaml.YAMLError) -> str:
    """What PyYAML says, on one line, with the place counted from 1."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = [getattr(error, "context", None), getattr(error, "problem", None)]
    text = on_one_line(", ".join(part for part in said if part)) or on_one_line(str(error))
    return f"{text} (line {mark.line + 1}, column {mark.column + 1})" if mark else text
