"""What commands say about how a dataset is to be read."""

from __future__ import annotations

from collections.abc import Iterable

import yaml
from pydantic import ValidationError

from data_catalog.rules import Rules
from flows.config.problems import explain_problems
from flows.errors import ConfigError

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
    given = {}
    for name, text in (("queries", queries), ("splits", splits)):
        if text is None:
            continue
        try:
            given[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--{name} {text}: not YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(given[name], dict):
            raise ConfigError(f"--{name} {text}: give a mapping, as in a config: {EXAMPLES[name]}")
    try:
        return Rules.model_validate(given)
    except ValidationError as error:
        raise ConfigError("; ".join(f"--{each}" for each in explain_problems(error, Rules))) from error
