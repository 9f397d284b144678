"""Every field of a config or a study: what `personsearch fields` shows.

They are read from a listing beside this file, which `model_fields` makes from the models that check configs:
to load the models takes several times longer than to print their fields.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_catalog.suggestions import near_names
from flows.errors import ConfigError

LISTING = Path(__file__).with_name("fields.json")
ANY_NAME = "NAME"
TO_BE_GIVEN = "(to be given)"
_MOST_SUGGESTED = 5


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


def config_fields(below: str = "", what: Literal["config", "study"] = "config") -> list[ConfigField]:
    """The fields of a config or a study whose path is `below` or begins with it; all of them by default.

    Raises ConfigError when there is none.
    """
    fields = [ConfigField(*row) for row in json.loads(LISTING.read_text())[what]]
    unnamed = [field for field in fields if _is_below(field.path.replace(f".{ANY_NAME}", ""), below)]
    wanted = unnamed or [field for field in fields if not below or _is_below(field.path, below)]
    if not wanted:
        top = dict.fromkeys(field.path.partition(".")[0].removesuffix("[]") for field in fields)
        raise ConfigError(
            f"a {what} has no field {below!r}{_near(below, fields)}; its sections and fields are "
            f"{', '.join(top)}"
        )
    return wanted


def _near(below: str, fields: Sequence[ConfigField]) -> str:
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
    fits = (one in (other, ANY_NAME) for one, other in zip(parts, wanted, strict=False))
    return len(parts) >= len(wanted) and all(fits)
