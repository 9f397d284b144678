"""Notices go to a real command and a real web server, take no longer than they may, and never fail a run."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config.loading import load_config
from flows.config.request import RunRequest
from flows.errors import ConfigError, Failure
from flows.run import notices
from flows.run.notices import announced, send
from flows.run.records import RunRecord, new_record_path


class Inbox(ThreadingHTTPServer):
    """A server that keeps what is posted to /ok, refuses /no, and sends /slow one byte now and then."""

    daemon_threads = True
    received: list[Any]


class Handler(BaseHTTPRequestHandler):
    server: Inbox

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.headers["Content-Type"], body))
        if self.path == "/odd":
            self.wfile.write(b"no HTTP\r\n\r\n")
            return
        if self.path == "/slow":
            for _ in range(50):
                self.wfile.write(b"H")
                time.sleep(0.1)
        self.send_response(403 if self.path.startswith("/no") else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def inbox() -> Iterator[tuple[str, list[Any]]]:
    with Inbox(("127.0.0.1", 0), Handler) as server:
        server.received = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", server.received
        server.shutdown()
        thread.join()


def config(folder: Path, notify: Any) -> RunRequest:
    path = folder / "night.yaml"
    body = {
        "store": "store",
        "datasets": {"d": {"adapter": "coco", "root": "."}},
        "detector": {"train": [{"dataset": "d", "split": "train"}]},
        "run": {"notify": notify},
    }
    path.write_text(yaml.safe_dump(body))
    return RunRequest(config=path)


def test_a_web_server_gets_the_line_and_the_run(inbox: tuple[str, list[Any]]) -> None:
    url, received = inbox
    assert send(f"{url}/ok", "it failed", "run 7") is None
    assert received == [("application/json", {"text": "it failed", "run": "run 7"})]
    assert send(f"{url}/no?secret", "it failed", "run 7") == "127.0.0.1: status 403"
    assert send(f"{url}/odd", "it failed", "run 7") == "127.0.0.1: BadStatusLine"
    assert send("http://127.0.0.1:9/secret", "it failed", "") == "127.0.0.1: [Errno 111] Connection refused"


def test_a_command_reads_the_line_and_no_shell_sees_it(tmp_path: Path) -> None:
    target, line = tmp_path / "told here", "failed: $(touch x) `touch y` 'z'"
    assert send(("tee", str(target)), line, "") is None and target.read_text() == f"{line}\n"
    assert send(f"tee '{target}'", "again", "") is None and target.read_text() == "again\n"
    assert send("/no/such/command", "line", "") == "cannot run /no/such/command: No such file or directory"
    told = send((sys.executable, "-c", "import sys; sys.exit('no\\nmail')"), "line", "")
    assert told == f"{sys.executable} ended with status 1: no mail"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    target = tmp_path / "told"
    assert send(("tee", str(target)), "the disk is full", "") is None
    assert target.read_text() == "the disk is full\n"
    assert send("false", "the disk is full", "") == "false ended with status 1"


def test_nothing_takes_longer_than_it_may(
    inbox: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notices, "LIMIT_SECONDS", 0.3)
    assert send(f"{inbox[0]}/slow", "line", "") == "127.0.0.1: no answer within 0.3 s"
    # The command's own child holds its output, too.
    mark = tmp_path / "mark"
    script = f"sleep 30 & trap '' TERM; sleep 1; touch {mark}"
    assert send(("sh", "-c", script), "line", "") == "sh did not end within 0.3 s and was stopped"
    time.sleep(1.2)
    assert not mark.exists()


def test_failures_and_bad_news_are_told_and_nothing_else(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    request = config(tmp_path, ["tee", "-a", str(inbox)])

    def run(record: RunRecord, error: BaseException | None = None) -> None:
        with announced(request, record):
            if error is not None:
                raise error

    def record(**fields: Any) -> RunRecord:
        return RunRecord(new_record_path(tmp_path / "store"), str(request.config), **fields)

    run(record())
    with pytest.raises(KeyboardInterrupt):
        run(record(), KeyboardInterrupt())
    assert not inbox.exists()
    with pytest.raises(ConfigError):
        run(record(), ConfigError("wrong\nin two lines"))
    run(failed := record(failure=Failure("died", "reid: killed", "a.log")))
    run(record(bad_news=["tag production: stays", "prw got worse"]))
    told = inbox.read_text().splitlines()
    assert told[0].startswith("personsearch night.yaml, run 2") and told[0].endswith(
        ": failed: wrong in two lines"
    )
    assert told[1] == f"personsearch night.yaml, run {failed.name}: failed: reid: killed; log: a.log"
    assert told[2].endswith(": tag production: stays; prw got worse") and len(told) == 3


def test_a_notice_that_fails_is_a_warning_of_the_record(tmp_path: Path) -> None:
    request = config(tmp_path, "false")
    record = RunRecord(
        new_record_path(tmp_path / "store"), "night.yaml", failure=Failure("broke", "it broke")
    )
    with announced(request, record):
        pass
    assert record.warnings == ["run.notify: false ended with status 1"]
    assert record.failure == Failure("broke", "it broke")


def test_a_config_that_is_wrong_is_told_where_it_says(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    request = config(tmp_path, f"tee {inbox}")
    wrong = request.model_copy(update={"overrides": ("detector.training.lr=-1",)})
    with pytest.raises(ConfigError), announced(wrong):
        load_config(wrong.config, wrong.overrides)
    assert "must be greater than 0" in inbox.read_text()


@pytest.mark.parametrize("notify", ["", "ftp://host/x", [], "a 'b"])
def test_what_is_neither_a_command_nor_a_url_is_refused(tmp_path: Path, notify: Any) -> None:
    with pytest.raises(ConfigError, match=r"run.notify: "):
        load_config(config(tmp_path, notify).config)
