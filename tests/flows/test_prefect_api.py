"""Where a run finds its Prefect API, and what is said where it finds none."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect import flow

from flows import prefect_api
from flows.errors import explain
from flows.prefect_api import free_port


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


def test_an_api_that_ends_at_its_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text(
        "#!/bin/sh\necho DatabaseError: file is not a database >&2\necho '  ^^^^' >&2\nexit 3\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(ConnectionError) as caught:
        prefect_api._start()
    assert "status 3, and said: DatabaseError: file is not a database (" in (explain(caught.value) or "")


def test_the_loopback_is_no_matter_for_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(prefect_api, "_START_SECONDS", 2.0)
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryFile() as said, subprocess.Popen(["sleep", "9"]) as process:
        try:
            prefect_api._wait_until_healthy(f"http://127.0.0.1:{server.server_port}/api", process, said)
        finally:
            process.kill()
            server.shutdown()
            server.server_close()
    with prefect_api._loopback_without_proxy():
        for host in ("127.0.0.1", "intranet"):
            assert urllib.request.proxy_bypass(host)
    assert (os.environ["NO_PROXY"], os.environ.get("no_proxy")) == ("intranet", None)


def test_no_link_leads_to_a_page_that_goes_with_the_run(prefect_api: str) -> None:
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    @flow
    def nothing() -> None:
        """No tasks."""

    listener = Listening()
    logging.getLogger("prefect.flow_runs").addHandler(listener)
    try:
        nothing()
    finally:
        logging.getLogger("prefect.flow_runs").removeHandler(listener)
    assert any("Beginning flow run" in line for line in said)
    assert not any(prefect_api.removesuffix("/api") in line for line in said)
