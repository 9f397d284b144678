"""Reads the YAML and JSON of configs and options."""

from __future__ import annotations

import copy
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_catalog import yaml_text
from data_catalog.suggestions import did_you_mean
from data_catalog.yaml_text import MOST_BYTES, YamlError
from flows.errors import ConfigError, missing


def read_yaml(path: Path) -> Any:
    """The value of a YAML or JSON file.

    Raises ConfigError when it is not a regular file of text of at most `MOST_BYTES`, and where `parse_yaml`
    does.
    """
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The text of a YAML or JSON file, as `parse_yaml` takes it; raises ConfigError as `read_yaml` does."""
    try:
        text = _regular_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ConfigError(
                f"config {path} is a link to {path.readlink()}, which does not exist; fix the link"
            ) from error
        near = did_you_mean(path.name, _yaml_files(path.absolute().parent))
        raise ConfigError(f"{missing(path, 'config')}{near}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}; "
            "save it as UTF-8, or name another file"
        ) from error
    if path.suffix.lower() == ".json":
        text = text.replace("\t", " ")  # YAML takes no tab between values, and a JSON string holds none
    return text


def parse_yaml(text: str, where: str) -> Any:
    """The value of YAML text; errors name `where` it was written.

    Raises ConfigError where `data_catalog.yaml_text.parse_yaml` refuses it.
    """
    try:
        return copy.deepcopy(_parsed(text, where))
    except YamlError as error:
        hint = (
            "; inside { } and [ ], quote text that has ${...}"
            if "${" in text and "flow" in str(error)
            else ""
        )
        raise ConfigError(f"{error}{hint}") from error


@lru_cache(maxsize=1024)
def _parsed(text: str, where: str) -> Any:
    """Members of a study share a config's text, and PyYAML takes 10 ms for it."""
    return yaml_text.parse_yaml(text, where)


def _yaml_files(folder: Path) -> list[str]:
    return [path.name for ending in ("*.yaml", "*.yml") for path in folder.glob(ending)]


def _regular_bytes(path: Path) -> bytes:
    """The file's bytes; a pipe or a device, which may never end, is not opened."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        found = sorted(_yaml_files(path))
        hint = f"name a file in it, such as {path / found[0]}" if found else "name a YAML file"
        raise ConfigError(f"cannot read the config {path}: it is a folder; {hint}")
    if not stat.S_ISREG(mode):
        raise ConfigError(f"cannot read the config {path}: it is a pipe or a device; name a YAML file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ConfigError(f"cannot read the config {path}: it is larger than {MOST_BYTES >> 20} MiB")
    return content
