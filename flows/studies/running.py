"""A study as one call: build what is missing, fill the tables as it goes, and write them."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.studies.cells import FilledTable, Filling
from flows.studies.cost import Estimator
from flows.studies.loading import Loader
from flows.studies.members import Study
from flows.studies.nodes import Nodes
from flows.studies.output import as_data, as_latex, as_markdown, as_parquet, member_table
from flows.studies.remaining import Remaining
from flows.studies.schedule import ONE_SLOT, Slots, StageEvent, ignore, run_members
from flows.studies.walks import MemberOutcome
from flows.studies.workers import run_on_workers
from flows.wording import first_few
from personsearch_core.checksums import CHECKSUMS
from storage import durable
from storage.digests import digest_json


@dataclass(frozen=True)
class StudyStanding:
    """How a study stands: its tables as far as they are filled, and the stages built and to build."""

    text: str
    """What has just happened."""
    tables: Sequence[FilledTable]
    done: int
    total: int
    seconds_left: float | None = None


_NAMED = 6
"""Stopped members to name."""


@dataclass(frozen=True)
class StudyResult:
    """The outcome of a study."""

    study: Study
    tables: Sequence[FilledTable]
    members: Sequence[MemberOutcome]
    made: Mapping[str, int]
    """Stages built, by kind."""
    folder: Path
    """Where the tables are written."""
    wall_seconds: float
    stopped: bool = False
    finished: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def failures(self) -> Iterator[tuple[str, str]]:
        """Each member that failed, with the reason; those that were stopped share one line."""
        failures = [(each.member.name, each.failure) for each in self.members if each.failure is not None]
        stopped = [name for name, failure in failures if failure.kind == "interrupted"]
        yield from ((name, str(failure)) for name, failure in failures if failure.kind != "interrupted")
        if stopped:
            yield first_few(stopped, _NAMED), "stopped; run the same command to go on"

    def as_data(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "study": str(self.study.path),
            "title": self.study.title,
            "finished": self.finished,
            "tables": as_data(self.tables),
            "members": [each.as_data() for each in self.members],
            "made": dict(self.made),
            "wall_seconds": self.wall_seconds,
        }


def run_study(
    study: Study,
    loader: Loader,
    *,
    choose_slots: Callable[[], Slots] = Slots,
    on: str | None = None,
    folder: Path | None = None,
    on_change: Callable[[StudyStanding], None] = ignore,
) -> StudyResult:
    """Build what the members need and the store does not have yet, and write the tables.

    choose_slots
        says where stages are built; called only if one is missing, since counting GPUs takes seconds.
    on
        the place whose workers build the members, instead of this machine; see `run_on_workers`.
    folder
        where the tables are written, again whenever a cell is filled; by default in the store.
    on_change
        called whenever a stage begins or ends.

    Raises ConfigError, before anything is built, for a config that is wrong.
    """
    started = time.monotonic()
    members = list(study.members.values())
    nodes = Nodes.of(members, loader)
    places = ONE_SLOT if on is not None or not nodes.missing else choose_slots()
    filling = Filling(study, loader)
    folder = folder or _folder(study, loader)
    remaining = Remaining(nodes, Estimator(loader.store_of(study), study.drawn), len(places.devices))
    watching = _Watching(study, filling, remaining, folder, on_change)
    outcome = (
        run_members(members, loader, study.path, slots=places, on_change=watching.changed)
        if on is None
        else run_on_workers(members, loader, study.path, on, on_change=watching.changed)
    )
    seconds = round(time.monotonic() - started, 3)
    result = StudyResult(
        study,
        filling.tables(outcome.members),
        outcome.members,
        outcome.made,
        folder,
        seconds,
        outcome.stopped,
    )
    write_result(result)
    return result


def write_result(result: StudyResult) -> None:
    """Write tables and members into the result's folder, in every format but HTML."""
    write_tables(result.study, result.tables, result.folder)
    durable.write(result.folder / "members.parquet", _parquet(member_table(result.members)), lasting=False)
    durable.write(result.folder / "study.json", json.dumps(result.as_data(), indent=1) + "\n", lasting=False)


def write_tables(study: Study, tables: Sequence[FilledTable], folder: Path) -> None:
    """Write the tables as they stand."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHECKSUMS).unlink(missing_ok=True)  # written again beside the page
    durable.write(folder / "cells.parquet", _parquet(as_parquet(tables)), lasting=False)
    durable.write(folder / "tables.md", as_markdown(study.title, tables), lasting=False)
    durable.write(folder / "tables.tex", as_latex(tables), lasting=False)


def _parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


class _Watching:
    """Fills the tables as stages end, and tells who watches."""

    def __init__(
        self,
        study: Study,
        filling: Filling,
        remaining: Remaining,
        folder: Path,
        on_change: Callable[[StudyStanding], None],
    ) -> None:
        self._study, self._filling, self._remaining, self._folder = study, filling, remaining, folder
        self._on_change = on_change
        self._total, self._done = len(remaining.nodes.missing), 0
        self._tables = filling.tables(())
        self._artifacts: set[str] = set()

    def changed(self, change: StageEvent) -> None:
        if change.ended:
            self._done += 1
            self._remaining.end(change.member, change.stage)
            self._tables = self._filling.tables(change.members())
            artifacts = {name for table in self._tables for name in table.artifacts}
            if artifacts != self._artifacts:
                self._artifacts = artifacts
                write_tables(self._study, self._tables, self._folder)
        else:
            self._remaining.begin(change.member, change.stage)
        left = self._remaining.seconds
        self._on_change(StudyStanding(str(change), self._tables, self._done, self._total, left))


def _folder(study: Study, loader: Loader) -> Path:
    what = [str(study.path.resolve()), *study.members, *(table.name for table in study.tables)]
    return loader.store_of(study).root / ".studies" / digest_json(what)[:12]
