"""Which store a command works on: `--store`, else the config's, else $PERSONSEARCH_STORE."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.config.raw import STORE_VARIABLE, given_store
from flows.errors import ConfigError

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
