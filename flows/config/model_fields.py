"""The fields of configs and studies, read from the models that check them: `fields.json` is made by this.

`make fields` writes it again after a model has changed.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import astuple
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from data_catalog.yaml_text import on_one_line
from flows.config.fields import ANY_NAME, LISTING, TO_BE_GIVEN, ConfigField

_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}

_Schema = dict[str, Any]


def listing() -> str:
    """What `fields.json` holds: a row per field, below the name of the file that has it."""
    from flows.config.models import Config
    from flows.studies.models import StudyFile

    parts = []
    for what, model in (("config", Config), ("study", StudyFile)):
        rows = ",\n".join(json.dumps(astuple(field), ensure_ascii=False) for field in fields_of(model))
        parts.append(f"{json.dumps(what)}: [\n{rows}\n]")
    return "{" + ",\n".join(parts) + "}\n"


def fields_of(model: type[BaseModel]) -> list[ConfigField]:
    """Every field of a model, and of those in it, in their order."""
    schema = model.model_json_schema(schema_generator=_WithDocstrings)
    return list(_fields(schema, schema["$defs"], ""))


class _WithDocstrings(GenerateJsonSchema):
    """The docstring below a field is its description.

    pydantic's `use_attribute_docstrings` reads every model's source at import, a fifth of a command's time.
    """

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        model = schema["cls"]
        for name in model.model_fields:
            if text := _docstring(model, name):
                made["properties"][name]["description"] = text
        return made


def _docstring(model: type, field: str) -> str | None:
    """What stands below a field, in the class or in the one that it has it from."""
    for owner in model.__mro__:
        texts = _docstrings(inspect.getmodule(owner)).get(owner.__qualname__, {})
        if field in texts or field in inspect.get_annotations(owner):
            return texts.get(field)
    return None


@cache
def _docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """The docstrings below the fields of each class of a module, as written at its top level."""
    found = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                above.target.id: inspect.cleandoc(below.value.value)
                for above, below in pairwise(node.body)
                if isinstance(above, ast.AnnAssign)
                and isinstance(above.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            }
    return found


def _fields(model: _Schema, models: dict[str, _Schema], prefix: str) -> Iterator[ConfigField]:
    required = model.get("required", ())
    for name, schema in model["properties"].items():
        path = f"{prefix}{name}"
        default = TO_BE_GIVEN if name in required else json.dumps(_without_nulls(schema.get("default", {})))
        description = schema.get("description", "")
        section, entry = _section(schema, models)
        if section is None:
            yield ConfigField(path, _takes(schema), default, on_one_line(description))
            continue
        # What a section holds that is left out is told field by field.
        shown = "" if isinstance(schema.get("default"), dict) else default
        takes = {"": "section", "[]": "list of sections"}.get(entry, "sections by name")
        yield ConfigField(path, takes, shown, on_one_line(description or section.get("description", "")))
        yield from _fields(section, models, f"{path}{entry}.")


def _section(schema: _Schema, models: dict[str, _Schema]) -> tuple[_Schema | None, str]:
    """The model that a field holds, if it holds one, and how its entries are written in a path."""
    choices = [(choice, "") for choice in (schema, *schema.get("anyOf", ()))]
    choices += [
        (schema.get("items") or {}, "[]"),
        (_held(schema), f".{ANY_NAME}"),
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


def _without_nulls(value: Any) -> Any:
    """As it may stand in a config, without the fields that have no value."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


if __name__ == "__main__":
    LISTING.write_text(listing())
