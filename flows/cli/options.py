"""Options that several commands share, and how their values are parsed."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from flows.config.devices import device_name
from flows.config.raw import STORE_VARIABLE, given_store
from flows.config.yaml_text import parse_yaml
from flows.errors import ConfigError, missing
from storage.errors import StorageError

if TYPE_CHECKING:
    from data_catalog.rules import Rules
    from storage.listing import Entry
    from storage.store import Store as ArtifactStore

T = TypeVar("T")

Store = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="STORE", help=f"Folder or URL of the store (default: ${STORE_VARIABLE})."
    ),
]
"""The option of a command that does not take a config."""

ConfigsStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help=f"Folder or URL of the store (default: the config's, then ${STORE_VARIABLE}).",
    ),
]
"""The option of a command that takes a config, required or optional."""

Device = Annotated[str, typer.Option(callback=device_name, help="auto, cpu, cuda, cuda:1 ...")]
SceneRoots = Annotated[
    list[str] | None,
    typer.Option(
        "--root", metavar="[OLD=]NEW", help="Where the scenes are now, if they were indexed elsewhere."
    ),
]
"""The option of a command that reads the scenes of an index."""


def chosen_store(given: str | None, *configs: Path | None) -> str:
    """The store as a URL or an absolute path.

    Raises ConfigError when no store is given, or when the configs name different ones.
    """
    if given is not None:
        return given_store(given, "--store")
    from flows.config.loading import store_of

    of_configs = {store_of(config): config for config in configs if config is not None}
    if len(of_configs) > 1:
        said = ", ".join(f"{config}: {store}" for store, config in of_configs.items())
        raise ConfigError(f"the configs name different stores; choose one with --store ({said})")
    if of_configs:
        return next(iter(of_configs))
    found = default_store()
    if found is None:
        raise ConfigError(f"no store is given: pass --store FOLDER (or a URL), or set ${STORE_VARIABLE}")
    return found


def argument(given: T | None, by_option: T | None, option: str, usage: str) -> T:
    """The value of a required argument that used to be an option, which is still accepted for now.

    Raises ConfigError if neither or both are given.
    """
    if given is not None and by_option is not None:
        raise ConfigError(f"{option} is an argument now; give it once: {usage}")
    if by_option is not None:
        typer.echo(f"note: {option} is an argument now: {usage}", err=True)
        return by_option
    if given is None:
        raise ConfigError(f"an argument is missing: {usage}")
    return given


def default_store() -> str | None:
    """The store of $PERSONSEARCH_STORE; None when the variable is unset or empty."""
    found = os.environ.get(STORE_VARIABLE)
    if not found:
        return None
    place = given_store(found, f"${STORE_VARIABLE}")
    if Path(place).is_file():
        raise ConfigError(f"${STORE_VARIABLE}: {place} is a file: set it to the folder of the store")
    return place


def existing_store(given: str | None, *configs: Path | None) -> ArtifactStore:
    """The store that `chosen_store` names. Raises ConfigError if it does not exist yet."""
    from storage.opening import open_store

    place = chosen_store(given, *configs)
    store = open_store(place)
    if not store.exists():
        config = next((str(each) for each in configs if each is not None), None)
        words = ["personsearch", "run", config or "CONFIG"]
        words += [] if given is None and config is not None else ["--store", place]
        raise ConfigError(f"{missing(place, 'store')}; name another, or create it: {shlex.join(words)}")
    return store


def artifact_named(store: ArtifactStore, name: str, entries: Iterable[Entry] | None = None) -> Entry:
    """The artifact that `name` means among `entries`, by default all of the store.

    Raises ConfigError, with the command that lists what there is, when it is none or several.
    """
    from storage.listing import list_entries, resolve_name

    try:
        return resolve_name(list_entries(store) if entries is None else entries, name)
    except StorageError as error:
        listing = shlex.join(["personsearch", "store", "ls", "--store", str(store)])
        raise ConfigError(f"{error} ({listing})") from error


def finite(value: float | None) -> float | None:
    """An option callback that rejects NaN and infinity."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


EXAMPLES = {
    "queries": "'{per_identity: 2, at_least_images: 3}'",
    "splits": "'{by: time, parts: {train: 0.6, test: 0.4}, gap: 50}'",
}


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """Parse `key=value` texts into a mapping. Raises ConfigError for any other text."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {text}: write it as key=value")
        options[key] = value
    return options


def parse_rules(queries: str | None, splits: str | None) -> Rules:
    """Parse --queries and --splits, each a mapping in YAML or JSON. Raises ConfigError for anything else."""
    from pydantic import ValidationError

    from data_catalog.rules import Rules
    from flows.config.problems import explain_problems

    given = {}
    for name, text in (("queries", queries), ("splits", splits)):
        if text is None:
            continue
        given[name] = parse_yaml(text, f"--{name} {text}")
        if not isinstance(given[name], dict):
            raise ConfigError(f"--{name} {text}: write a mapping, as in a config: {EXAMPLES[name]}")
    try:
        return Rules.model_validate(given)
    except ValidationError as error:
        raise ConfigError("; ".join(f"--{each}" for each in explain_problems(error, Rules))) from error
