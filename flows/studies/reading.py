"""Reads a study file: YAML to `StudyFile`, with the line of every problem."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from data_catalog.yaml_text import locate
from flows.config.problems import explain_problems
from flows.config.raw import Places, extended_file, given_store, read_extended
from flows.config.yaml_text import read_text, read_yaml
from flows.errors import ConfigError
from flows.studies.models import StudyFile

_PATHS: Places = (("store",), ("config",), ("members", "*", "config"), ("draw", "folder"))
_HINTS = {"members": "this field is missing; a study has members and tables, see docs/studies.md"}


def is_study(path: Path) -> bool:
    """Whether a YAML file is a study, not a config. Raises ConfigError for a file that cannot be read."""
    raw = read_yaml(path)
    return isinstance(raw, dict) and ("tables" in raw or "members" in raw or "stand_ins" in raw)


def read_study(path: Path) -> StudyFile:
    """The study of a YAML file.

    Raises ConfigError with every problem, each with the file and line it stands in.
    """
    raw = read_extended(path, _PATHS, path.parent.absolute())
    if "detector" in raw and "members" not in raw:
        raise ConfigError(f"{path} is a config, not a study; run it with: personsearch run {path}")
    bases = [read_yaml(file) for file in islice(_chain(path), 1, None)]
    for field in ("members", "tables"):  # null takes away what another study has that this one extends
        if isinstance(raw.get(field), dict):
            inherited = {name for base in bases if isinstance(base.get(field), dict) for name in base[field]}
            raw[field] = {
                name: value
                for name, value in raw[field].items()
                if value is not None or name not in inherited
            }
    try:
        study = StudyFile.model_validate(raw)
    except ValidationError as error:
        problems = explain_problems(error, StudyFile, _HINTS)
        raise ConfigError("; ".join(f"{place(path, each.field)}: {each}" for each in problems)) from error
    if study.store is not None and "://" not in study.store:
        study = study.model_copy(update={"store": given_store(study.store, f"{path}: store")})
    return study


def place(path: Path, field: str) -> str:
    """The line that has a field, or most of its dotted name: of the file, or of one that it extends."""
    found = [(*locate(read_text(file), field), file) for file in _chain(path)]
    part, line, file = max(found, key=lambda each: len(each[0]))
    return f"{file}, line {line}" if part else str(path)


def _chain(path: Path) -> Iterator[Path]:
    """The file, and those that it extends."""
    yield path
    raw = read_yaml(path)
    base = raw.get("extends") if isinstance(raw, dict) else None
    if isinstance(base, str):
        yield from _chain(extended_file(path, base))
