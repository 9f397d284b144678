"""The one way in for YAML (and JSON, which is YAML): one value a name, bounded in size, depth and aliases."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from flows.errors import ConfigError

MOST_BYTES = 1 << 20
"""Of a config file; the longest of this project has 3 KB."""
MOST_VALUES = 100_000
"""Values of a config once its aliases are written out."""
MOST_DEPTH = 50
"""Mappings and lists inside each other."""

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
# What the constructors of PyYAML raise where a value does not fit its tag: 2024-13-01, !!bool perhaps.
_UNFIT = (ValueError, KeyError, AttributeError, TypeError, OverflowError)


def read_yaml(path: Path) -> Any:
    """The value of a YAML or JSON file.

    Raises ConfigError when it is not a regular file of text of at most `MOST_BYTES`, and where `parse_yaml`
    does.
    """
    try:
        text = _regular_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}"
        ) from error
    if path.suffix.lower() == ".json":
        text = text.replace("\t", " ")  # YAML takes no tab between values, and a JSON string holds none
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of YAML text; errors name `where` it was written.

    Raises ConfigError when it is not YAML, a name stands twice in a mapping or is not text, or the value is
    too deep or, its aliases written out, too large.
    """
    try:
        loader = _Loader(text, where)
        node = loader.get_single_node()
        if node is None:
            return None
        _written_out(node, where, {})
        _check_names(node, where)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: this is not valid YAML: {_explained(error)}") from error
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: this is not valid YAML: {_explained(error)}") from error
    except _UNFIT as error:
        said = f"{error}" if isinstance(error, ValueError) else "a value does not fit its !!tag"
        raise ConfigError(
            f"{where}: this is not valid YAML: {on_one_line(said)}; put quotes around text that looks like a "
            "number or a date"
        ) from error


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
            raise ConfigError(
                f"{self._where}: more than {MOST_DEPTH} mappings or lists lie inside each other "
                f"({_line(self.peek_event())}): this is not a config"
            )
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _regular_bytes(path: Path) -> bytes:
    """The file's bytes; a pipe or a device, which may never end, is not opened."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ConfigError(f"cannot read the config {path}: it is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise ConfigError(f"cannot read the config {path}: it is not a regular file but a pipe or a device")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ConfigError(f"cannot read the config {path}: it is larger than {MOST_BYTES >> 20} MiB")
    return content


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _written_out(node: yaml.Node, where: str, sizes: dict[int, int | None]) -> int:
    """How many values a node stands for with all aliases written out; `sizes` are those of nodes seen."""
    known = sizes.get(id(node), 0)
    if known is None:
        raise ConfigError(
            f"{where}: an alias (*) stands for what it is itself a part of ({_line(node)}); write it out"
        )
    if known:
        return known
    sizes[id(node)] = None
    total = 1 + sum(_written_out(child, where, sizes) for child in _children(node))
    if total > MOST_VALUES:
        raise ConfigError(
            f"{where}: its aliases (*) stand for more than {MOST_VALUES:,} values ({_line(node)}); "
            "this is not a config"
        )
    sizes[id(node)] = total
    return total


def _check_names(root: yaml.Node, where: str) -> None:
    """Every name of a mapping is text, and stands there once."""
    seen: set[int] = set()
    pending: list[tuple[str, yaml.Node]] = [("", root)]
    while pending:
        place, node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            pending += _named(node, where, place)
        else:
            pending += [(f"{place}{at}.", child) for at, child in enumerate(_children(node))]


def _named(node: yaml.MappingNode, where: str, place: str) -> Iterator[tuple[str, yaml.Node]]:
    """The values of a mapping with the prefix of what lies in them; raises ConfigError for a bad name."""
    first: dict[str, yaml.Node] = {}
    for name, value in node.value:
        if name.tag not in (_TEXT, _MERGE) or not isinstance(name, yaml.ScalarNode):
            shown = repr(name.value) if isinstance(name, yaml.ScalarNode) else "a list or a mapping"
            raise ConfigError(
                f"{where}: {place}{shown} ({_line(name)}) is not read as text; put the name in quotes"
            )
        if name.value in first:
            hint = "name all of them in one list" if name.tag == _MERGE else "keep one"
            raise ConfigError(
                f"{where}: {place}{name.value} stands twice, {_lines(first[name.value], name)}; {hint}"
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
