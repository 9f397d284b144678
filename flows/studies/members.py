"""A study as it is run: its members, and the tables with the members that each cell is of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_catalog.suggestions import did_you_mean
from flows.config.loading import load_config
from flows.config.raw import read_raw
from flows.errors import ConfigError
from flows.studies.grid import Axis, Point, grid
from flows.studies.models import Column, MemberGroup, PublishedRow, StudyFile, Table
from flows.studies.objectives import OBJECTIVE, objective_axis
from flows.studies.reading import place

_NAMES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Member:
    """One config with its changes, which is built up to the stage `until`."""

    name: str
    config: Path
    overrides: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    """Values in the grid, and the seed, by field."""
    until: str = "evaluation"


@dataclass(frozen=True)
class Cell:
    """What stands in a table: a metric of a member, or its mean over members that differ in their seed."""

    members: tuple[str, ...]
    metric: str
    published: float | None = None


@dataclass(frozen=True)
class TableRow:
    name: str
    title: str
    cells: Mapping[str, Cell]
    """By column."""
    ours: bool = False

    def is_called(self, wanted: str) -> bool:
        """Whether this is its name or title, or the title up to a comma: J3 is "J3" and "J3, m-w-p"."""
        words = (self.name, self.title, self.title.partition(",")[0])
        return wanted.lower() in map(str.lower, words)


@dataclass(frozen=True)
class StudyTable:
    """A table: its cells are read from the members' artifacts."""

    name: str
    title: str
    caption: str
    source: str | None
    columns: Mapping[str, Column]
    rows: tuple[TableRow, ...]
    published_rows: Mapping[str, PublishedRow] = field(default_factory=dict)
    is_ranked: bool = False
    """Whether rows are sorted by their first column, the best first."""


@dataclass(frozen=True)
class Study:
    """Members by name, and tables; `path` is the study's file, or the config of a sweep."""

    path: Path
    title: str
    members: Mapping[str, Member]
    tables: tuple[StudyTable, ...]
    store: str | None = None
    drawn: Mapping[Path, Mapping[str, int]] = field(default_factory=dict)
    """What synthetic datasets hold, by root, as an ingest counts it: known before they are drawn."""

    def of_rows(self, text: str) -> Study:
        """Only these rows, comma-separated, by `TableRow.is_called`, and their members.

        Raises ConfigError for a row that is not there.
        """
        rows = [row for table in self.tables for row in table.rows]
        names = list(dict.fromkeys(row.title for row in rows))
        parts = [name.strip() for name in text.split(",") if name.strip()]
        if not parts:
            raise ConfigError(f"--rows: name at least one row; there are {'; '.join(names)}")
        wanted = []
        while parts:
            # The most parts first: a title may have a comma itself.
            ends = range(len(parts), 0, -1)
            called = (", ".join(parts[:end]) for end in ends)
            found = next((name for name in called if any(row.is_called(name) for row in rows)), None)
            if found is None:
                hint = did_you_mean(parts[0], names)
                raise ConfigError(f"--rows: no row {parts[0]!r}{hint}; choose from {'; '.join(names)}")
            wanted.append(found)
            parts = parts[found.count(",") + 1 :]
        tables = [
            replace(table, rows=tuple(row for row in table.rows if any(map(row.is_called, wanted))))
            for table in self.tables
        ]
        left = tuple(table for table in tables if table.rows)
        needed = {name for _, _, cell in cells_of(left) for name in cell.members}
        return replace(self.of_members(needed), tables=left)

    def of_members(self, names: Iterable[str]) -> Study:
        """The same tables with these members alone: cells of the others stay holes."""
        kept = set(names)
        return replace(self, members={name: each for name, each in self.members.items() if name in kept})


def cells_of(tables: Iterable[StudyTable]) -> Iterator[tuple[StudyTable, str, Cell]]:
    """Every cell of the tables, with its table and column."""
    for table in tables:
        for row in table.rows:
            for column, cell in row.cells.items():
                yield table, column, cell


def resolve_study(
    path: Path, file: StudyFile, *, store: str | None = None, seeds: Sequence[int] = ()
) -> Study:
    """The tables of a study file and the members that they need.

    `seeds` stand in place of the file's own, if there are any.

    Raises ConfigError for a config, a grid or a name that is wrong, with its file and line.
    """
    chosen = store or file.store
    groups: dict[str, list[Member]] = {}
    for name, group in file.members.items():
        try:
            found = list(_members(name, group, file, chosen))
        except ConfigError as error:
            raise ConfigError(f"{place(path, f'members.{name}')}: member {name!r}: {error}") from error
        for member in found:
            if member.name in groups:
                raise ConfigError(
                    f"{place(path, f'members.{name}.name')}: several members are called {member.name!r}: "
                    "give each group a `name` with its fields, such as '{roi.variant} on PRW'"
                )
            groups[member.name] = list(_with_seeds(member, seeds or file.seeds, file.seed_fields))
    tables = tuple(_table(path, name, table, groups, file) for name, table in file.tables.items())
    needed = {name for _, _, cell in cells_of(tables) for name in cell.members}
    members = {each.name: each for group in groups.values() for each in group if each.name in needed}
    _require_datasets(path, file, chosen)
    drawn = {} if file.draw is None else file.draw.counts()
    return Study(path, file.title, members, tables, chosen, drawn)


def _require_datasets(path: Path, file: StudyFile, store: str | None) -> None:
    """Refuse to draw a dataset that no member has or names: it is misspelt."""
    if file.draw is None:
        return
    known: set[str] = set()
    for group in file.members.values():
        changes = (*_overrides(file.set), *_overrides(group.set))
        if (config := group.config or file.config) is not None:
            known |= set(_datasets(read_raw(config, changes, store)))
        for axis, values in group.grid.items():
            for value in values.values() if isinstance(values, dict) else values:
                known |= set(_datasets(_nested(axis, value)))
    for name in file.draw.datasets:
        if name not in known:
            raise ConfigError(
                f"{place(path, f'draw.datasets.{name}')}: draw: no member has a dataset {name!r}"
                f"{did_you_mean(name, known)}; they have {', '.join(sorted(known))}"
            )


def _nested(field: str, value: Any) -> Any:
    """A value as raw settings that have it at a dotted field."""
    for name in reversed(field.split(".")):
        value = {name: value}
    return value


def _datasets(raw: Any) -> Iterator[str]:
    """The datasets that raw settings define, and those that views anywhere in them are of."""
    if isinstance(raw, dict):
        if isinstance(name := raw.get("dataset"), str):
            yield name
        if isinstance(datasets := raw.get("datasets"), dict):
            yield from datasets
        raw = list(raw.values())
    if isinstance(raw, list):
        for each in raw:
            yield from _datasets(each)


def _members(name: str, group: MemberGroup, file: StudyFile, store: str | None) -> Iterator[Member]:
    config = group.config or file.config
    if config is None:
        raise ConfigError("it names no config; write `config: FILE.yaml`, here or for the whole study")
    drawn = () if file.draw is None else file.draw.overrides()
    always = (*drawn, *_overrides(file.set), *_overrides(group.set))
    axes = [_axis(field, values, config, always, store) for field, values in group.grid.items()]
    for point in grid(axes, always):
        yield Member(_member_name(name, group, point), config, point.overrides, point.settings, group.until)


def _overrides(changes: Mapping[str, Any]) -> Iterator[str]:
    return (f"{name}={json.dumps(value)}" for name, value in changes.items())


def _axis(field: str, given: Any, config: Path, always: Sequence[str], store: str | None) -> Axis:
    values = given if isinstance(given, dict) else {_label(value): value for value in given}
    if field == OBJECTIVE:
        return objective_axis(load_config(config, always, store=store), values)
    return Axis(
        field, tuple(values), {label: (f"{field}={json.dumps(value)}",) for label, value in values.items()}
    )


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _member_name(name: str, group: MemberGroup, point: Point) -> str:
    if group.name is None:
        return " ".join([name, *point.settings.values()])
    return filled(group.name, point.settings, "members have the fields of their grid")


def filled(template: str, values: Mapping[str, str], hint: str) -> str:
    """A text with the values of its {NAMES}. Raises ConfigError for a name without a value."""
    unknown = [name for name in _NAMES.findall(template) if name not in values]
    if unknown:
        raise ConfigError(
            f"{template!r}: there is no {{{unknown[0]}}}; {hint}: {', '.join(values) or 'none'}"
        )
    return _NAMES.sub(lambda match: values[match[1]], template)


def _with_seeds(member: Member, seeds: Sequence[int], fields: Sequence[str]) -> Iterator[Member]:
    if not seeds:
        yield member
    for seed in seeds:
        yield replace(
            member,
            name=f"{member.name}, seed {seed}",
            overrides=(*member.overrides, *(f"{name}={seed}" for name in fields)),
            settings={**member.settings, "seed": str(seed)},
        )


def _table(
    path: Path, name: str, table: Table, groups: Mapping[str, Sequence[Member]], file: StudyFile
) -> StudyTable:
    rows = []
    for row_name, row in table.rows.items():
        where = f"tables.{name}.rows.{row_name}"
        _check_columns(path, where, row.published, table.columns)
        cells = {}
        for column_name, column in table.columns.items():
            at = f"tables.{name}.columns.{column_name}"
            wanted = column.member or row.member or row_name
            try:
                member = filled(wanted, {"row": row_name}, "a column has")
                metric = filled(column.metric, {"row": row_name}, "a column has")
            except ConfigError as error:
                raise ConfigError(f"{place(path, at)}: {error}") from error
            if member not in groups:
                raise ConfigError(
                    f"{place(path, at if column.member else where)}: there is no member {member!r}"
                    f"{did_you_mean(member, groups)}; there are {', '.join(groups)}"
                )
            of_seeds = tuple(each.name for each in groups[member])
            cells[column_name] = Cell(of_seeds, metric, row.published.get(column_name))
        rows.append(TableRow(row_name, row.title or row_name, cells, row.ours))
    for row_name, published in table.published_rows.items():
        where = f"tables.{name}.published_rows.{row_name}"
        _check_columns(path, where, published.published, table.columns)
    return StudyTable(
        name,
        table.title,
        _caption(table, file),
        table.source,
        table.columns,
        tuple(rows),
        table.published_rows,
    )


def _check_columns(path: Path, where: str, given: Mapping[str, float], columns: Mapping[str, Column]) -> None:
    for name in given:
        if name not in columns:
            raise ConfigError(
                f"{place(path, f'{where}.published.{name}')}: there is no column {name!r}"
                f"{did_you_mean(name, columns)}; this table has {', '.join(columns)}"
            )


def _caption(table: Table, file: StudyFile) -> str:
    if not file.stand_ins:
        return table.caption
    warning = (
        f"Measured on synthetic stand-ins, so these values are not comparable with the published ones: "
        f"{file.stand_ins}"
    )
    return f"{table.caption} {warning}".strip()
