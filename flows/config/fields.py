"""Every field of a config, from the models that check it: what `personsearch fields` shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from data_catalog.suggestions import near_names
from flows.config.models import Config
from flows.errors import ConfigError

_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_ANY_NAME = "NAME"
_MOST_SUGGESTED = 5
_TO_BE_GIVEN = "(to be given)"

_Schema = dict[str, Any]


@dataclass(frozen=True)
class ConfigField:
    """One field: its dotted path, what it takes, its default and what it means.

    In a path `[]` stands for each entry of a list, and `NAME` for a name that the user gives. A section has
    no default of its own where its fields have.
    """

    path: str
    takes: str
    default: str
    description: str


def config_fields(below: str = "") -> list[ConfigField]:
    """The fields whose path is `below` or begins with it; all of them by default.

    Raises ConfigError when there is none.
    """
    return fields_of(Config, below, "config")


def fields_of(model: type[BaseModel], below: str, what: str) -> list[ConfigField]:
    """As `config_fields`, for the model of a file that messages call `what`."""
    schema = model.model_json_schema()
    fields = list(_fields(schema, schema["$defs"], ""))
    unnamed = [field for field in fields if _is_below(field.path.replace(f".{_ANY_NAME}", ""), below)]
    wanted = unnamed or [field for field in fields if not below or _is_below(field.path, below)]
    if not wanted:
        raise ConfigError(
            f"a {what} has no field {below!r}{_near(below, fields)}; its sections and fields are "
            f"{', '.join(schema['properties'])}"
        )
    return wanted


def _near(below: str, fields: list[ConfigField]) -> str:
    """Fields elsewhere that end in the same name, or in one near it, as a question."""
    last = below.rpartition(".")[2]
    ends = {field.path.rpartition(".")[2] for field in fields}
    wanted = {last} if last in ends else set(near_names(last, ends))
    found = [field.path for field in fields if field.path.rpartition(".")[2] in wanted]
    return f" (did you mean {' or '.join(found[:_MOST_SUGGESTED])}?)" if found else ""


def _is_below(path: str, prefix: str) -> bool:
    """Whatever position of a list, or none, the prefix gives."""
    parts = path.replace("[]", "").split(".")
    wanted = [part for part in prefix.replace("[]", "").split(".") if not part.isdecimal()]
    fits = (one in (other, _ANY_NAME) for one, other in zip(parts, wanted, strict=False))
    return len(parts) >= len(wanted) and all(fits)


def _fields(model: _Schema, models: dict[str, _Schema], prefix: str) -> Iterator[ConfigField]:
    required = model.get("required", ())
    for name, schema in model["properties"].items():
        path = f"{prefix}{name}"
        default = _TO_BE_GIVEN if name in required else _shown(schema.get("default", {}))
        description = schema.get("description", "")
        section, entry = _section(schema, models)
        if section is None:
            yield ConfigField(path, _takes(schema), default, _on_one_line(description))
            continue
        # What a section holds that is left out is told field by field.
        shown = "" if isinstance(schema.get("default"), dict) else default
        takes = {"": "section", "[]": "list of sections"}.get(entry, "sections by name")
        yield ConfigField(path, takes, shown, _on_one_line(description or section.get("description", "")))
        yield from _fields(section, models, f"{path}{entry}.")


def _section(schema: _Schema, models: dict[str, _Schema]) -> tuple[_Schema | None, str]:
    """The model that a field holds, if it holds one, and how its entries are written in a path."""
    choices = [(choice, "") for choice in (schema, *schema.get("anyOf", ()))]
    choices += [
        (schema.get("items") or {}, "[]"),
        (_held(schema), f".{_ANY_NAME}"),
    ]
    for choice, entry in choices:
        if "$ref" in choice:
            return models[choice["$ref"].rpartition("/")[2]], entry
    return None, ""


def _held(schema: _Schema) -> _Schema:
    """What the entries of a mapping hold, if that is stated."""
    held = schema.get("additionalProperties")
    return held if isinstance(held, dict) else {}


def _takes(schema: _Schema) -> str:
    if "anyOf" in schema:
        return " | ".join(_takes(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema["type"])
    if "prefixItems" in schema:
        return f"[{', '.join(_takes(item) for item in schema['prefixItems'])}]"
    if kind == "array":
        return f"list of {_takes(schema['items'])}"
    if kind == "object":
        held = _held(schema)
        return f"{_takes(held) if held else 'anything'}, by name"
    bounds = ", ".join(f"{sign} {schema[bound]}" for bound, sign in _BOUNDS.items() if bound in schema)
    return f"{kind} {bounds}" if bounds else str(schema.get("format", kind))


def _shown(value: Any) -> str:
    """As it may stand in a config, without the fields that have no value."""
    return json.dumps(_without_nulls(value))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
