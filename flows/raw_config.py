"""A config as its files and `--set` say, before it is checked: mappings, lists and values.

Values may hold `${VAR}` and `${VAR:-default}` from the environment. `extends: other.yaml` takes another
file's fields as defaults; a path in them is relative to the file that it is written in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from flows.errors import ConfigError

PUBLISHED_WEIGHTS = ("coco", "imagenet")
"""What a config may say in the place of a file of weights."""

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def read_raw(path: Path, overrides: Iterable[str], store: str | None) -> dict[str, Any]:
    """A config as its files and its overrides say, unchecked."""
    # Expanded first, because that copies: where YAML aliases share a mapping, an override changes one place.
    raw: dict[str, Any] = _expand(_read_yaml(path), path)
    for override in overrides:
        apply_override(raw, override)
    if store is not None:
        raw["store"] = store if "://" in store else str(Path(store).absolute())
    return raw


def _read_yaml(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A config file's mapping over that of the file it extends."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}"
        ) from error
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError where something looks like a date and is none, as 2024-13-01.
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no mapping; see configs/demo.yaml for an example")
    _refuse_cycles(raw, path)
    base = raw.pop("extends", None)
    if base is None:
        return raw
    chain = (*extended_by, path.resolve())
    if not isinstance(base, str) or (path.parent / base).resolve() in chain:
        raise ConfigError(f"{path}: extends wants the name of another config file, not {base!r}")
    extended = path.parent / base
    return _merged(_with_places(_read_yaml(extended, chain), extended.parent.absolute()), raw)


class _Path(str):
    """A path of an extended file, to be taken from that file's folder once its variables are known."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> _Path:
        path = super().__new__(cls, text)
        path.folder = folder
        return path

    def placed(self, expanded: str) -> str:
        """The path as any file may have it; what is no relative path stays."""
        if "://" in expanded or expanded.startswith("~") or expanded in PUBLISHED_WEIGHTS:
            return expanded
        return os.path.normpath(self.folder / expanded)


def _with_places(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An extended file's fields, their paths marked with its folder; those marked before stay."""
    copied = _mapped(raw, ("store",), folder)
    for fields in (("datasets", "*", "root"), ("detector", "model", "initial_weights")):
        copied = _mapped(copied, fields, folder)
    return copied


def _mapped(value: Any, fields: tuple[str, ...], folder: Path) -> Any:
    """A copy of nested mappings in which the string at `fields`, of which `*` is every name, is marked."""
    if not fields:
        return _Path(value, folder) if isinstance(value, str) and not isinstance(value, _Path) else value
    if not isinstance(value, dict):
        return value
    first, *rest = fields
    return {
        name: _mapped(item, tuple(rest), folder) if first in ("*", name) else item
        for name, item in value.items()
    }


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over`'s fields in the place of `base`'s; mappings are merged, lists replaced."""
    both = dict(base)
    for name, value in over.items():
        old = both.get(name)
        both[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one field of a raw config, `reid.lr=3e-4`: the value is YAML, list items are named by number."""
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set wants NAME=VALUE such as reid.lr=3e-4, not {override!r}")
    *parents, last = name.split(".")
    node: Any = raw
    for parent in parents:
        node = _child(node, parent, name)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {name}: {text!r} is not valid YAML: {_on_one_line(error)}") from error
    if isinstance(value, str):
        value = _number(value)
    if isinstance(node, list):
        node[_list_position(node, last, name)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"--set {name}: {'.'.join(parents)} is a single value and has no field {last!r}")


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _child(node: Any, part: str, name: str) -> Any:
    if isinstance(node, list):
        return node[_list_position(node, part, name)]
    if not isinstance(node, dict):
        raise ConfigError(f"--set {name}: nothing lies under {part!r}")
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _list_position(node: list[Any], part: str, name: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise ConfigError(f"--set {name}: {part!r} is none of the positions 0 to {len(node) - 1}")
    return int(part)


def _number(text: str) -> str | float:
    # YAML 1.1 takes 3e-4 (no dot) for a string.
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) else text


def _refuse_cycles(value: Any, path: Path, within: tuple[int, ...] = ()) -> None:
    """`within` are the ids of the mappings and lists that a value lies in."""
    if id(value) in within:
        raise ConfigError(f"{path}: an alias (*) stands for what it is itself a part of; write it out")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_cycles(item, path, (*within, id(value)))


def _expand(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"], match["default"])
        if found is None:
            raise ConfigError(
                f"{path}: the environment variable {match['name']} is not set; set it or give a default"
            )
        return found

    if isinstance(value, _Path):
        return value.placed(_VARIABLE.sub(replace, value))
    return _number(_VARIABLE.sub(replace, value)) if "e" in value.lower() else _VARIABLE.sub(replace, value)
