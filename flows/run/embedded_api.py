"""One Prefect API per home folder: the first run starts it, later runs use it, and it ends when it is idle.

The kernel's locks say what lives, so that kill -9 of anything leaves nothing to repair: the API's process
(flows/run/embedded_server.py) holds one while it lives, and each run holds one, its lease, while it uses the
API.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import UUID

from flows.errors import ConfigError
from storage import durable
from storage.locks import exclusive, is_held

IDLE_MINUTES = "PERSONSEARCH_API_IDLE_MINUTES"
"""The environment variable that says how long an API stays after its last run."""

_IDLE_MINUTES = 15.0
FOLDER = "personsearch-api"
"""Where, in a home folder, the files of embedded APIs lie."""

_START_SECONDS = 180.0
_ANSWER_SECONDS = 20.0
_END_SECONDS = 15.0
_LOOK_SECONDS = 0.05
_LAST_LINES = 3
_NOTE = ".run"


@dataclass(frozen=True)
class ApiFiles:
    """The files of one API in a home folder; `name` tells APIs of different settings apart."""

    folder: Path
    name: str

    @classmethod
    def of(cls, home: Path, name: str) -> ApiFiles:
        return cls(home.absolute() / FOLDER, name)

    @property
    def lock(self) -> Path:
        """Held by the API's process as long as it lives."""
        return self.folder / f"{self.name}.lock"

    @property
    def address(self) -> Path:
        """The number of the API's process and its URL, once it answers."""
        return self.folder / f"{self.name}.url"

    @property
    def log(self) -> Path:
        """What the API's process prints."""
        return self.folder / f"{self.name}.log"

    @property
    def migration(self) -> Path:
        """Held by the one API that brings the database up to date."""
        return self.folder / "database.lock"

    @contextmanager
    def lease(self) -> Iterator[Path]:
        """Hold a lease, a file that is locked while a run lives, which keeps an embedded API alive.

        Yields its note: where the run writes which flow run it is.
        """
        lease = self.folder / f"{self.name}.{secrets.token_hex(8)}.lease"
        note = lease.with_suffix(_NOTE)
        with exclusive(lease, what="the lease of a run"):
            try:
                yield note
            finally:
                note.unlink(missing_ok=True)

    def leases(self) -> list[Path]:
        return list(self.folder.glob(f"{self.name}.*.lease"))

    def is_in_use(self) -> bool:
        return any(is_held(lease) is not None for lease in self.leases())

    def write_address(self, url: str) -> None:
        """Say where this process serves."""
        durable.write(self.address, f"{os.getpid()} {url}", lasting=False)

    def url_of(self, process: int) -> str | None:
        """Where that process serves; None while it does not say so."""
        try:
            said, _, url = self.address.read_text().partition(" ")
        except FileNotFoundError:
            return None
        return url if said == str(process) else None

    def killed_runs(self) -> list[UUID]:
        """Flow runs whose process ended without giving its lease back; each is told once."""
        killed = []
        for lease in self.leases():
            if is_held(lease) is None:
                note = lease.with_suffix(_NOTE)
                if note.exists():
                    killed.append(UUID(note.read_text()))
                note.unlink(missing_ok=True)
                lease.unlink(missing_ok=True)
        return killed

    def clear_others(self) -> None:
        """Remove what killed processes and killed APIs of other settings left."""
        for file in durable.abandoned(self.folder):
            file.unlink(missing_ok=True)
        for lock in self.folder.glob("*.lock"):
            other = ApiFiles(self.folder, lock.stem)
            if other.name == self.name or is_held(lock) is not None or other.is_in_use():
                continue
            for file in self.folder.glob(f"{other.name}.*"):
                file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Api:
    """A Prefect API in use, and the note of the lease by which others see that this process lives."""

    url: str
    note: Path

    def watch_over(self, flow_run: UUID) -> None:
        """Have the flow run marked as crashed if this process is killed."""
        durable.write(self.note, str(flow_run), lasting=False)


def _home() -> Path:
    """The home folder, which is made if it is missing. Raises ConfigError if it cannot be written."""
    given = os.environ.get("PREFECT_HOME") or "~/.prefect"
    try:
        home = Path(given).expanduser()
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home folder
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"Prefect's home folder {given} cannot be written ({said}): set PREFECT_HOME to a folder that can"
        ) from error
    return home


def start_ahead() -> subprocess.Popen[bytes] | None:
    """Start an API before Prefect is loaded here, which takes as long in its process; for `embedded_api`.

    It finds out by itself which place is its own, and says so. None if an API runs already, and with an idle
    time of 0, which would end it before it is used. Raises ConfigError for a wrong idle time, and for a home
    folder that cannot be written.
    """
    home = _home()
    idle = idle_seconds()
    if idle == 0 or any(is_held(lock) is not None for lock in (home / FOLDER).glob("*.lock")):
        return None
    return _popen([str(idle)], stdout=subprocess.PIPE)


@contextmanager
def embedded_api(place: ApiFiles, ahead: subprocess.Popen[bytes] | None = None) -> Iterator[Api]:
    """The API of a home folder, which is started where none runs, and kept while the block lasts.

    `ahead` is of `start_ahead`; it is ended if it serves another place.
    Raises ConnectionError when it fails to start or does not answer, TimeoutError when it does not come up.
    """
    idle = idle_seconds()
    try:
        with place.lease() as note:
            yield Api(_running_url(place, idle, ahead and _if_at(place, ahead)), note)
    finally:
        if idle == 0:
            _wait_for_end(place)


def idle_seconds() -> float:
    """How long an API that is started now stays after its last run. Raises ConfigError for a wrong value."""
    text = os.environ.get(IDLE_MINUTES, "")
    try:
        minutes = float(text) if text else _IDLE_MINUTES
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < float("inf"):
        raise ConfigError(
            f"{IDLE_MINUTES}: {text!r} is not a number of minutes; 0 ends the Prefect API with its last run, "
            f"the default is {_IDLE_MINUTES:g}"
        )
    return 60 * minutes


def _if_at(place: ApiFiles, ahead: subprocess.Popen[bytes]) -> subprocess.Popen[bytes] | None:
    """The process that was started ahead if it serves the place; it says nothing where it failed."""
    assert ahead.stdout is not None
    with ahead.stdout as said:
        name = said.readline().decode().strip()
    if name == place.name:
        return ahead
    ahead.kill()
    ahead.wait()
    return None


def _running_url(place: ApiFiles, idle: float, ahead: subprocess.Popen[bytes] | None) -> str:
    """Wait for the API's address; start a process unless one serves or is starting."""
    started = ahead
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        holder = is_held(place.lock)
        if holder is None:
            # One that another process's API sent away has ended with 0; that one may have died since.
            # What was started ahead has no output to quote, so it is started again.
            status = None if started is None else started.poll()
            if started is None or status == 0 or (started is ahead and status is not None):
                started = _start(place, idle)
            elif status is not None:
                raise ConnectionError(
                    f"the embedded Prefect API failed to start (exit status {status}). "
                    f"Last output: {_last_words(place.log)} (its database is in $PREFECT_HOME, "
                    "by default ~/.prefect)"
                )
        elif (url := place.url_of(holder)) is not None:
            _require_answer(url, holder)
            return url
        time.sleep(_LOOK_SECONDS)
    if started is not None:
        started.kill()
    raise TimeoutError(
        f"the embedded Prefect API did not come up within {_START_SECONDS:.0f} s. Last output: "
        f"{_last_words(place.log)}"
    )


def _start(place: ApiFiles, idle: float) -> subprocess.Popen[bytes]:
    with place.log.open("wb") as said:
        return _popen([str(idle), str(place.folder), place.name], stderr=said)


def _popen(
    arguments: list[str],
    stdout: int = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.run.embedded_server", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _require_answer(url: str, process: int) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/health", timeout=_ANSWER_SECONDS):
            return
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"the embedded Prefect API at {url} does not answer ({error}): end its process, "
            f"`kill {process}`, and run the same command again"
        ) from error


def _wait_for_end(place: ApiFiles) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while is_held(place.lock) is not None and not place.is_in_use() and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def _last_words(said: Path) -> str:
    try:
        text = said.read_text(errors="replace")
    except FileNotFoundError:
        return "nothing"
    # Without the marks by which a traceback points into its lines.
    lines = [line for line in text.splitlines() if line.strip(" ^~")]
    return " | ".join(lines[-_LAST_LINES:]) or "nothing"
