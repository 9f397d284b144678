"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.config.raw import STORE_VARIABLE, given_store
from flows.errors import ConfigError

if TYPE_CHECKING:
    from data_catalog.rules import Rules

Store = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="STORE", help=f"Folder or URL of the store; by default ${STORE_VARIABLE}."
    ),
]
"""The option of a command that takes no config."""

ConfigsStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help=f"Folder or URL of the store; by default the config's, else ${STORE_VARIABLE}.",
    ),
]
"""The option of a command that takes a config, always or perhaps."""


def chosen_store(given: str | None, *configs: Path | None) -> str:
    """The store as a URL or an absolute path.

    Raises ConfigError when nothing says which, or configs say different ones.
    """
    if given is not None:
        return given_store(given, "--store")
    from flows.config.models import store_of  # loads pydantic, which few commands on a store need

    of_configs = {store_of(config): config for config in configs if config is not None}
    if len(of_configs) > 1:
        said = ", ".join(f"{config}: {store}" for store, config in of_configs.items())
        raise ConfigError(f"these configs have different stores: say which with --store ({said})")
    if of_configs:
        return next(iter(of_configs))
    found = default_store()
    if found is None:
        raise ConfigError(f"say which store: give --store FOLDER (or a URL), or set ${STORE_VARIABLE}")
    return found


def default_store() -> str | None:
    """The store of $PERSONSEARCH_STORE; None where that is not set, or empty."""
    found = os.environ.get(STORE_VARIABLE)
    return given_store(found, f"${STORE_VARIABLE}") if found else None


def finite(value: float | None) -> float | None:
    """A callback of an option: its value, unless that is NaN or infinite."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


EXAMPLES = {
    "queries": "'{per_identity: 2, at_least_images: 3}'",
    "splits": "'{by: time, parts: {train: 0.6, test: 0.4}, gap: 50}'",
}


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """`key=value` texts as a mapping; raises ConfigError where one is none."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {text}: give key=value")
        options[key] = value
    return options


def parse_rules(queries: str | None, splits: str | None) -> Rules:
    """What --queries and --splits ask for, each a mapping in YAML or JSON; ConfigError where one is none."""
    from pydantic import ValidationError

    from data_catalog.rules import Rules
    from flows.config.problems import explain_problems
    from flows.config.yaml_text import parse_yaml

    given = {}
    for name, text in (("queries", queries), ("splits", splits)):
        if text is None:
            continue
        given[name] = parse_yaml(text, f"--{name} {text}")
        if not isinstance(given[name], dict):
            raise ConfigError(f"--{name} {text}: give a mapping, as in a config: {EXAMPLES[name]}")
    try:
        return Rules.model_validate(given)
    except ValidationError as error:
        raise ConfigError("; ".join(f"--{each}" for each in explain_problems(error, Rules))) from error
