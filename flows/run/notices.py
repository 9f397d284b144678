"""One line for whoever should know that a run failed, or that its results got worse: `run.notify`.

A notice that cannot be sent is a warning in the run's record, and never fails the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import urlsplit

from flows.config.notify import Target, is_url, notify_target, words_of
from flows.config.raw import read_raw
from flows.config.request import RunRequest
from flows.console import told
from flows.errors import failure_or_bug
from flows.run.records import RunRecord

LIMIT_SECONDS = 10.0
"""How long a command or a web server may take."""

_LAST_BYTES = 200


@contextmanager
def announced(request: RunRequest, record: RunRecord | None = None) -> Iterator[None]:
    """Send the bad news of the block, if the config says where to: its error, or what the record has.

    Without a record, only an error is news. Ctrl-C is not: the user who pressed it knows.
    """
    try:
        yield
    except Exception as error:
        _announce(request, record, [f"failed: {failure_or_bug(error)}"])
        raise
    if record is not None:
        news = [f"failed: {record.failure}"] if record.failure is not None else record.bad_news
        _announce(request, record, news)


def send(target: Target, text: str, run: str) -> str | None:
    """Give one line to a command or a web server; what went wrong, or None. Takes LIMIT_SECONDS at most."""
    return _post(str(target), text, run) if is_url(target) else _tell(words_of(target), text)


def _announce(request: RunRequest, record: RunRecord | None, news: list[str]) -> None:
    target = _target(request) if news else None
    if target is None:
        return
    run = "" if record is None else record.name
    text = f"personsearch {Path(request.config).name}{run and f', run {run}'}: {'; '.join(news)}"
    problem = send(target, " ".join(text.split()), run)
    if problem is not None:
        told.warning("run.notify: %s", problem)
        if record is not None:
            record.warnings.append(f"run.notify: {problem}")


def _target(request: RunRequest) -> Target | None:
    """Where the config says that notices go, even if the rest of it is wrong; None if it does not say."""
    try:
        run: Any = read_raw(request.config, request.overrides, request.store).get("run") or {}
        given = run.get("notify")
        return notify_target(tuple(map(str, given)) if isinstance(given, list) else given)
    except (ValueError, AttributeError, OSError):
        return None  # the failure of the run says what is wrong with the config


def _tell(words: list[str], text: str) -> str | None:
    """Run a command, without a shell, with the line as its standard input."""
    with _scratch_file() as output:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return f"cannot run {words[0]}: {error.strerror or error}"
        try:
            process.communicate(f"{text}\n".encode(), timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"{words[0]} did not end within {LIMIT_SECONDS:g} s and was stopped"
        if process.returncode == 0:
            return None
        output.seek(0)
        said = " ".join(output.read().decode(errors="replace").split())[-_LAST_BYTES:]
        return f"{words[0]} ended with status {process.returncode}{said and f': {said}'}"


def _scratch_file() -> IO[bytes]:
    """For what a command prints; without it on a full disk, which may be the very news."""
    try:
        return TemporaryFile()
    except OSError:
        return Path(os.devnull).open("w+b")


def _post(url: str, text: str, run: str) -> str | None:
    """Post the line as JSON. Messages name only the host: the rest of such a URL is often a secret."""
    import http.client  # loads ssl, which no good night needs
    import urllib.error
    import urllib.request

    body = json.dumps({"text": text, "run": run}).encode()
    host, outcome = urlsplit(url).hostname, [f"no answer within {LIMIT_SECONDS:g} s"]

    def post() -> None:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=LIMIT_SECONDS):
                outcome.clear()
        except urllib.error.HTTPError as error:
            outcome[:] = [f"status {error.code}"]
        except (OSError, ValueError, http.client.HTTPException) as error:
            outcome[:] = [str(getattr(error, "reason", None) or type(error).__name__)]

    # A server that sends a byte now and then never meets the time limit of a socket, so wait for the whole.
    thread = threading.Thread(target=post, daemon=True, name="notify")
    thread.start()
    thread.join(LIMIT_SECONDS)
    return f"{host}: {outcome[0]}" if outcome else None
