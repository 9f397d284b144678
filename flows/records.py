"""The record of a run: one JSON file in the store, rewritten at each change; `status` and --json read it."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.plan import Planned
from storage.artifacts import Artifact


@dataclass
class RunRecord:
    """What a run did so far, stage by stage."""

    path: Path
    config: str
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    pid: int = field(default_factory=os.getpid)
    stages: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    finished: str | None = None

    def begin(self, planned: Planned) -> None:
        self.stages.append({**planned.as_record(), "state": "running"})
        self.write()

    def cached(self, planned: Planned) -> None:
        self.stages.append(planned.as_record())
        self.write()

    def made(self, artifact: Artifact) -> None:
        seconds = artifact.manifest.seconds
        self.stages[-1].update(state="made", path=str(artifact.path), seconds=seconds)
        self.write()

    def failed(self, message: str, log_path: Path) -> None:
        self.stages[-1].update(state="failed", error=message, log=str(log_path))
        self.error = message
        self.write()

    def end(self) -> None:
        self.finished = datetime.now(UTC).isoformat(timespec="seconds")
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        body = {name: value for name, value in self.__dict__.items() if name != "path"}
        temporary.write_text(json.dumps(body, indent=1) + "\n")
        temporary.replace(self.path)


def new_record_path(store_root: Path) -> Path:
    """A free name under the store's runs, in order of time."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return store_root / ".runs" / f"{stamp}-{secrets.token_hex(3)}.json"
