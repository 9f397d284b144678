"""A config as its files and `--set` say, before it is checked: mappings, lists and values.

Values may hold `${VAR}` and `${VAR:-default}` from the environment, paths also `$VAR`, and `$$` for a dollar
sign. `extends: other.yaml` takes another file's fields as defaults; a path in them is relative to the file
that it is written in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flows.config.yaml_text import parse_yaml, read_yaml
from flows.errors import ConfigError

PUBLISHED_WEIGHTS = ("coco", "imagenet")
"""What a config may say in the place of a file of weights."""

STORE_VARIABLE = "PERSONSEARCH_STORE"
"""The environment's store, for commands and configs that are given no other."""

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE = re.compile(rf"\$\{{(?P<name>{_NAME})(?::-(?P<default>[^}}]*))?\}}")
_PATH_VARIABLE = re.compile(rf"{_VARIABLE.pattern}|\$(?P<bare>{_NAME})|(?P<dollar>\$\$)|(?P<broken>\$\{{)")
_ONE_SLASH = re.compile(r"([a-z][a-z0-9]+):/([^/].*)")
Places = tuple[tuple[str, ...], ...]
"""Fields of a file; `*` is any name."""

ARTIFACT = re.compile(r"(?P<kind>[a-z][a-z0-9_-]*)/(?P<key>[0-9a-f]{4,})")
"""An artifact by its kind and the beginning of its key."""

_PINS: Places = (("detector", "use"), ("reid", "use"), ("features", "use"))
"""Fields that name a trained model, or features, and hold a path if it is a folder."""

_PATHS: Places = (("store",), ("datasets", "*", "root"), ("detector", "model", "initial_weights"), *_PINS)
"""Fields of a config that hold a path."""


def read_raw(path: Path, overrides: Iterable[str], store: str | None) -> dict[str, Any]:
    """A config as its files and its overrides say, unchecked, with the values of variables."""
    # Expanded first, because that copies: where YAML aliases share a mapping, an override changes one place.
    raw = read_extended(path, _PATHS, None)
    for override in overrides:
        apply_override(raw, override)
    # What is not expanded yet was given by `--set`.
    raw = _mapped_paths(raw, _PATHS, lambda text: expanded_path(text, "--set"))
    if store is not None:
        raw["store"] = given_store(store, "--store")
    elif raw.get("store") is None and os.environ.get(STORE_VARIABLE):
        raw["store"] = given_store(os.environ[STORE_VARIABLE], f"${STORE_VARIABLE}")
    return raw


def read_extended(path: Path, paths: Places, folder: Path | None) -> dict[str, Any]:
    """A file's fields over those of the file that it extends, unchecked, with the values of variables.

    `paths` are the fields that hold paths; those that the file itself has are taken from `folder` on, or stay
    as they are written without one. Raises ConfigError for a file that cannot be read.
    """
    expanded: dict[str, Any] = _expand(_with_places(_read_mapping(path, paths), folder, paths), path)
    return expanded


def given_store(store: str, where: str) -> str:
    """A store given outside a config as a URL or an absolute path, with `~` and variables expanded."""
    return resolved_store(str(expanded_path(store, where)), Path.cwd(), where)


def resolved_store(store: str, folder: Path, where: str) -> str:
    """A store as a URL or an absolute path, from a folder on; `where` it is given is for errors."""
    if not store.strip():
        raise ConfigError(f"{where} is empty: give a folder, or a URL such as s3://bucket/prefix")
    if "://" not in store:
        if scheme := _ONE_SLASH.match(store):
            raise ConfigError(f"{where}: {store!r} is a URL with one slash; write {scheme[1]}://{scheme[2]}")
        return absolute(store, folder)
    from storage.urls import names_a_place  # loads fsspec

    if not names_a_place(store):
        raise ConfigError(
            f"{where}: {store!r} does not name a place: give the whole URL, such as s3://bucket/prefix"
        )
    return store


def absolute(path: str | Path, folder: Path) -> str:
    """A path, relative ones below a folder, with `~` expanded; links stay, so that messages show the user's
    own names."""
    try:
        return os.path.normpath(folder / Path(path).expanduser())
    except RuntimeError as error:
        raise ConfigError(f"{path}: that user has no home folder; give the whole path") from error


def is_folder(model: str) -> bool:
    """Whether `use` names a folder: it has a slash and is not `kind/key`."""
    return "/" in model and not ARTIFACT.fullmatch(model)


def _read_mapping(path: Path, paths: Places, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A config file's mapping over that of the file it extends."""
    try:
        raw = read_yaml(path)
    except ConfigError as error:
        if not extended_by:
            raise
        raise ConfigError(f"{extended_by[-1]}: extends: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} does not hold a mapping; see configs/demo.yaml for an example")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    chain = (*extended_by, Path(os.path.realpath(path)))  # `resolve` raises for a link that leads to itself
    extended = path if not isinstance(base, str) else extended_file(path, base)
    if Path(os.path.realpath(extended)) in chain:
        raise ConfigError(f"{path}: extends must name another config file, not {base!r}")
    base_raw = _read_mapping(extended, paths, chain)
    for section, field in _PINS:
        own = raw.get(section)
        if isinstance(own, dict) and own.get(field) is not None:  # it takes the place of a training's section
            base_raw.pop(section, None)
    return _merged(_with_places(base_raw, extended.parent.absolute(), paths), raw)


def extended_file(path: Path, base: str) -> Path:
    """The file that a config extends, from the config's own folder on, with `~` and variables expanded."""
    expanded = expanded_path(base, f"{path}: extends")
    return path.parent / (absolute(expanded, path.parent) if expanded.startswith("~") else expanded)


class _Path(str):
    """A path as a file gives it, to be taken from that file's folder once its variables are known.

    Without a folder it stays as it is written: the config's own paths are resolved when it has been checked.
    """

    folder: Path | None

    def __new__(cls, text: str, folder: Path | None) -> _Path:
        path = super().__new__(cls, text)
        path.folder = folder
        return path

    def placed(self, expanded: str) -> str:
        """The path as any file may have it; anything but a relative path stays."""
        if "://" in expanded or expanded.startswith("~") or expanded in PUBLISHED_WEIGHTS:
            return expanded
        return expanded if self.folder is None else os.path.normpath(self.folder / expanded)


class ExpandedPath(str):
    """A path whose variables have been replaced; `unset` are those of which the default was taken."""

    unset: tuple[str, ...]

    def __new__(cls, text: str, unset: tuple[str, ...] = ()) -> ExpandedPath:
        path = super().__new__(cls, text)
        path.unset = unset
        return path


def _with_places(raw: dict[str, Any], folder: Path | None, paths: Places) -> dict[str, Any]:
    """A file's fields, their paths marked with its folder; those marked before stay."""

    def marked(text: str, folder: Path | None) -> str:
        return text if isinstance(text, _Path) else _Path(text, folder)

    pins = [place for place in paths if place in _PINS]
    raw = _mapped_paths(raw, pins, lambda text: marked(text, folder if is_folder(text) else None))
    return _mapped_paths(raw, paths, lambda text: marked(text, folder))


def _mapped_paths(
    raw: dict[str, Any], paths: Iterable[tuple[str, ...]], change: Callable[[str], str]
) -> dict[str, Any]:
    """A copy of a file's fields with each path changed."""
    for fields in paths:
        raw = _mapped(raw, fields, change)
    return raw


def _mapped(value: Any, fields: tuple[str, ...], change: Callable[[str], str]) -> Any:
    """A copy of nested mappings in which the string at `fields` is changed."""
    if not fields:
        return change(value) if isinstance(value, str) else value
    if not isinstance(value, dict):
        return value
    first, *rest = fields
    return {
        name: _mapped(item, tuple(rest), change) if first in ("*", name) else item
        for name, item in value.items()
    }


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over`'s fields in the place of `base`'s; mappings are merged, lists replaced."""
    both = dict(base)
    for name, value in over.items():
        old = both.get(name)
        both[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def of_results(overrides: Iterable[str]) -> list[str]:
    """The overrides that records and reports name: not those of `run`, which change no result, and which may
    hold a secret, such as the URL of a web hook."""
    return [each for each in overrides if each.partition("=")[0].partition(".")[0] != "run"]


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one field of a raw config, `reid.lr=3e-4`: the value is YAML, list items are named by number."""
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set takes NAME=VALUE such as reid.lr=3e-4, not {override!r}")
    *parents, last = name.split(".")
    node: Any = raw
    for at, parent in enumerate(parents):
        following = (*parents[at + 1 :], last)[0]
        node = _child(node, parent, name, is_list=following.isdecimal())
    value = parse_yaml(text, f"--set {override}")
    if isinstance(value, str):
        value = _number(value)
    if isinstance(node, list):
        node[_list_position(node, last, name)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"--set {name}: {'.'.join(parents)} is a single value and has no field {last!r}")


def _child(node: Any, part: str, name: str, *, is_list: bool) -> Any:
    if isinstance(node, list):
        return node[_list_position(node, part, name)]
    if not isinstance(node, dict):
        raise ConfigError(f"--set {name}: there is nothing under {part!r}")
    if node.get(part) is None:
        if is_list:
            raise ConfigError(
                f"--set {name}: the file does not give the list {part!r}, so no item of it can be changed; "
                f"set the whole list: --set '{name.partition(f'.{part}.')[0]}.{part}=[...]'"
            )
        node[part] = {}
    return node[part]


def _list_position(node: list[Any], part: str, name: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise ConfigError(f"--set {name}: {part!r} is not a position from 0 to {len(node) - 1}")
    return int(part)


def _number(text: str) -> str | float:
    # YAML 1.1 takes 3e-4 (no dot) for a string.
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) else text


def _expand(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path) for item in value]
    if isinstance(value, _Path):
        expanded = expanded_path(value, str(path))
        return ExpandedPath(value.placed(expanded), expanded.unset)
    if not isinstance(value, str):
        return value
    expanded_text = _VARIABLE.sub(lambda match: _value_of(match, value, str(path)), value)
    return _number(expanded_text) if "e" in value.lower() else expanded_text


def expanded_path(text: str, where: str) -> ExpandedPath:
    """A path with its variables' values, `$NAME` among them; one that was expanded before stays.

    Raises ConfigError, which names `where` the path is given, when a variable is not set or it holds a null
    character.
    """
    if isinstance(text, ExpandedPath):
        return text
    if "\0" in text:
        raise ConfigError(f"{where}: {text!r} is not a path: it contains a null character")
    unset: list[str] = []

    def replace(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["broken"]:
            raise ConfigError(f"{where}: {text!r}: write a variable as ${{NAME}} or ${{NAME:-DEFAULT}}")
        if match["default"] is not None and not os.environ.get(match["name"]):
            unset.append(match["name"])
        return _value_of(match, text, where)

    return ExpandedPath(_PATH_VARIABLE.sub(replace, text), tuple(unset))


def _value_of(match: re.Match[str], text: str, where: str) -> str:
    """A variable's value; as in a shell, the default stands for an empty one, too."""
    name = match["name"] or match["bare"]
    found = os.environ.get(name)
    if match["default"] is not None:
        return found or match["default"]
    if found is None:
        literal = "" if match["name"] else ", or write $$ for a dollar sign"
        raise ConfigError(
            f"{where}: {text!r}: the environment variable {name} is not set; set it, or give a default: "
            f"${{{name}:-DEFAULT}}{literal}"
        )
    return found
