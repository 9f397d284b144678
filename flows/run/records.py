"""The record of a run: one JSON file in the store, rewritten at each change; `status` and --json read it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import Failure, FailureKind, explain_os_error
from storage import durable
from storage.store import Artifact

if TYPE_CHECKING:
    from flows.plan.states import Planned

log = logging.getLogger(__name__)

BEAT_SECONDS = 60.0
GONE_SECONDS = 3600.0
"""A run of another host has ended if its record is older than this: many beats, since clocks differ."""

KEPT_RECORDS = 1000

RUN_NAME = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")


@dataclass
class RunRecord:
    """What a run did so far, stage by stage."""

    path: Path
    config: str
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    stages: list[dict[str, Any]] = field(default_factory=list)
    failure: Failure | None = None
    finished: str | None = None
    overrides: list[str] = field(default_factory=list)
    """Changes of the config, except of its section `run`."""
    promotion: dict[str, Any] | None = None
    """Whether a tag was moved to the run's model, and why; see `flows.run.promotion.Verdict`."""
    bad_news: list[str] = field(default_factory=list)
    """What got worse, although nothing failed."""
    warnings: list[str] = field(default_factory=list)
    """What went wrong beside the run's own work."""

    @property
    def name(self) -> str:
        """What tells runs of a store apart; each line of a stage's log has it as `run`."""
        return self.path.stem

    def artifacts(self) -> Iterator[str]:
        """What the run has used or built, as `kind/key`."""
        for stage in self.stages:
            if stage["key"] is not None:
                yield f"{stage['stage'].partition(':')[0]}/{stage['key']}"

    def begin(self, planned: Planned, log_path: Path | None) -> None:
        log_file = None if log_path is None else str(log_path)
        self.stages.append({**planned.as_record(), "state": "running", "log": log_file})
        self.write()

    def cached(self, planned: Planned) -> None:
        self.stages.append(planned.as_record())
        self.write()

    def made(self, artifact: Artifact) -> None:
        manifest = artifact.manifest
        self.stages[-1].update(
            state="made",
            path=str(artifact.path),
            seconds=manifest.seconds,
            peak_memory_bytes=manifest.peak_memory_bytes,
        )
        self.write()

    def failed(self, failure: Failure) -> None:
        self.stages[-1].update(state="failed", error=failure.message)
        self.failure = failure
        self.write()

    def end(self) -> None:
        """Close the record; a stage that was running when the run was interrupted has failed."""
        for stage in self.stages:
            if stage["state"] == "running":
                message = f"{stage['stage']}: the run was interrupted"
                stage.update(state="failed", error=message)
                self.failure = self.failure or Failure("interrupted", message, stage.get("log"))
        self.finished = datetime.now(UTC).isoformat(timespec="seconds")
        self.write()

    def write(self) -> None:
        """Write the file; if the disk is full, the run continues without an up-to-date record."""
        try:
            self._write()
        except OSError as error:
            log.warning("cannot write the run's record %s: %s", self.path, explain_os_error(error))

    def _write(self) -> None:
        durable.make_folder(self.path.parent)
        body = {name: value for name, value in asdict(self).items() if name != "path"}
        durable.write(self.path, json.dumps(body, indent=1) + "\n")


def new_record_path(store_root: Path) -> Path:
    """A free name under the store's runs; names sort by time, to the microsecond."""
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%S}-{now.microsecond:05x}{secrets.randbelow(16):x}"
    return records_folder(store_root) / f"{name}.json"


def records_folder(store_root: Path) -> Path:
    return store_root / ".runs"


@contextmanager
def heartbeat(record: RunRecord) -> Iterator[None]:
    """Touch the record's file now and then, so that other hosts see that the run goes on.

    At the end, records of long ago are deleted: the newest KEPT_RECORDS stay, and those of runs that go on.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(record.path)

    threading.Thread(target=beat, daemon=True, name="heartbeat").start()
    try:
        yield
    finally:
        ended.set()
        _prune(record.path.parent)


def _prune(folder: Path) -> None:
    for path in sorted(folder.glob("*.json"), reverse=True)[KEPT_RECORDS:]:
        read = _read(path)
        if read is not None and not is_running(read):
            with contextlib.suppress(OSError):
                path.unlink()


def where_time_went(stages: Sequence[Mapping[str, Any]], wall_seconds: float) -> str:
    """One line: the stages that were made, by their share of a run's wall time, the longest first."""
    made = [(stage["stage"], stage["seconds"]) for stage in stages if stage["state"] == "made"]
    if not made:
        is_whole = all(stage["state"] == "cached" for stage in stages)
        return f"{'everything was already there' if is_whole else 'nothing was built'} ({wall_seconds:.1f} s)"
    rest = wall_seconds - sum(seconds for _, seconds in made)
    parts = [*sorted(made, key=lambda part: -part[1]), ("the rest", max(rest, 0.0))]
    shown = [f"{name} {seconds:.1f} s ({seconds / max(wall_seconds, 1e-9):.0%})" for name, seconds in parts]
    return f"where the time went: {', '.join(shown)}; {wall_seconds:.1f} s in all"


def find_record(store_root: Path, name: str) -> RunRecord | None:
    """The record of the run of that name, as `status` prints it; None without one."""
    path = records_folder(store_root) / f"{name}.json"
    return _read(path) if RUN_NAME.fullmatch(name) else None


def read_records(store_root: Path) -> Iterator[RunRecord]:
    """The records of a store's runs, the newest first; one that cannot be read is left out."""
    for path in sorted(records_folder(store_root).glob("*.json"), reverse=True):
        if (record := _read(path)) is not None:
            yield record


def _read(path: Path) -> RunRecord | None:
    try:
        body = json.loads(path.read_bytes())
        return RunRecord(path, **body | {"failure": _failure(body.pop("error", None), body.get("failure"))})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("cannot read the record of a run: %s: %s", path, error)
        return None


_KINDS_BY_CLASS: dict[str | None, FailureKind] = {
    "StageBroke": "broke",
    "StageDied": "died",
    "Interrupted": "interrupted",
    "TimeoutError": "interrupted",
    None: "refused",
}


def _failure(error: str | None, failure: dict[str, Any] | str | None) -> Failure | None:
    """The failure of a record; older records have its message and the name of its class."""
    if isinstance(failure, dict):
        return Failure(**failure)
    return None if error is None else Failure(_KINDS_BY_CLASS[failure], error)


def is_running(record: RunRecord) -> bool:
    """Whether the run is active.

    The process of one of another host cannot be seen from here: it is gone when it has not touched its record
    for GONE_SECONDS.
    """
    import psutil

    if record.finished is not None:
        return False
    if record.host != socket.gethostname():
        try:
            return time.time() - record.path.stat().st_mtime < GONE_SECONDS
        except FileNotFoundError:
            return False
    try:
        # Another process may have been given the same number since.
        begun = datetime.fromtimestamp(psutil.Process(record.pid).create_time(), UTC)
    except psutil.NoSuchProcess:
        return False
    return begun <= datetime.fromisoformat(record.started) + timedelta(seconds=1)
