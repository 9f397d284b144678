"""What model files say of themselves in JSON; they may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from personsearch_core.errors import PersonSearchError
from personsearch_core.recipes.base import Recipe

MOST_BYTES = 16 << 20
MODEL_FORMAT = 1
"""Of the description of an exported model; other formats are refused."""
R = TypeVar("R", bound=Recipe)


def read_description(file: Path, what: str) -> dict[str, Any]:
    """The JSON object in a regular file. PersonSearchError says that it does not describe `what`, and why."""
    try:
        if file.exists() and not file.is_file():
            raise PersonSearchError(f"{file} does not describe {what}: it is not a regular file")
        if file.stat().st_size > MOST_BYTES:
            raise PersonSearchError(
                f"{file} does not describe {what}: it is larger than {MOST_BYTES >> 20} MiB"
            )
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise PersonSearchError(f"{file} does not describe {what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PersonSearchError(f"{file} does not describe {what}: it is not UTF-8 text") from error
    return described(text, f"{file} does not describe {what}")


def read_model_description(file: Path) -> dict[str, Any]:
    """What an exported model says of itself. Raises PersonSearchError, also if it has another format."""
    description = read_description(file, "an exported model")
    if (version := description.get("format")) != MODEL_FORMAT:
        raise PersonSearchError(f"{file} has format {version!r}; this version reads format {MODEL_FORMAT}")
    return description


def described(text: str, refusal: str) -> dict[str, Any]:
    """The JSON object in a text; PersonSearchError begins with `refusal`."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise PersonSearchError(f"{refusal}: {error}") from error
    except RecursionError as error:
        raise PersonSearchError(f"{refusal}: it is nested too deeply") from error
    if not isinstance(found, dict):
        raise PersonSearchError(f"{refusal}: it is not a JSON object")
    return found


def part(recipe: type[R], description: Mapping[str, Any], name: str, refusal: str) -> R:
    """The recipe under a name of a description; PersonSearchError begins with `refusal`."""
    try:
        return recipe.model_validate(description.get(name))
    except ValidationError as error:
        raise PersonSearchError(f"{refusal}: {name}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """On one line, the first thing that does not fit a recipe: where, and why."""
    first = error.errors()[0]
    where = [".".join(map(str, first["loc"]))] if first["loc"] else []
    return " ".join(": ".join([*where, first["msg"]]).split())
