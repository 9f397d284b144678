"""A server that takes what MLflow's takes, by the limits of MLflow's REST API, and keeps it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


class Kept(ThreadingHTTPServer):
    """`calls` are (path, body) in order; a call in `refused` is answered with status 400."""

    daemon_threads = True
    calls: list[tuple[str, Any]]
    refused: set[str]
    authorization: str | None = None

    def bodies(self, end: str) -> list[Any]:
        return [body for path, body in self.calls if path.endswith(end)]


class _Handler(BaseHTTPRequestHandler):
    server: Kept

    def do_POST(self) -> None:
        body = json.loads(self._read())
        self.server.calls.append((self.path, body))
        self.server.authorization = self.headers["Authorization"]
        call = self.path.removeprefix("/api/2.0/mlflow/")
        fault = _fault(body) if call not in self.server.refused else "the database is gone"
        answers: dict[str, Any] = {
            "experiments/create": {"experiment_id": "7"},
            "runs/create": {
                "run": {"info": {"run_id": "r1", "artifact_uri": "mlflow-artifacts:/7/r1/artifacts"}}
            },
        }
        self._answer(400 if fault else 200, {"message": fault} if fault else answers.get(call, {}))

    def do_GET(self) -> None:
        place, _, query = self.path.partition("?")
        self.server.calls.append((place, parse_qs(query)))
        self._answer(200, {"experiment": {"experiment_id": "9"}})

    def do_PUT(self) -> None:
        self.server.calls.append((self.path, self._read()))
        self._answer(400 if "artifacts" in self.server.refused else 200, {"message": "the disk is full"})

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _fault(body: Any) -> str | None:
    counts = {part: len(body.get(part, [])) for part in ("params", "metrics", "tags")}
    if counts["params"] > 100 or sum(counts.values()) > 1000:
        return "too many in one request"
    if any(len(each["value"]) > 500 for each in body.get("params", [])):
        return "a value is too long"
    names = [each["key"] for part in ("params", "metrics", "tags") for each in body.get(part, [])]
    return next((f"invalid name {name!r}" for name in names if ":" in name), None)


@contextmanager
def keeping_server() -> Iterator[tuple[str, Kept]]:
    """Its URL, and what it keeps."""
    with Kept(("127.0.0.1", 0), _Handler) as server:
        server.calls, server.refused = [], set()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", server
        finally:
            server.shutdown()
            thread.join()
