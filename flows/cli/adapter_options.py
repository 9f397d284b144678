"""What commands say about how a dataset is to be read."""

from __future__ import annotations

from collections.abc import Iterable

from flows.errors import ConfigError


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """`key=value` texts as a mapping; raises ConfigError where one is none."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {text}: give key=value")
        options[key] = value
    return options
