"""A stand-in for object storage: an HTTP file server with range requests and a delay per request.

`python -m benchmarks.range_server FOLDER --delay 0.02` prints its port and serves until it is ended.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.options import run_script

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class RangeServer(ThreadingHTTPServer):
    """One thread per connection, and room for many simultaneous ones."""

    request_queue_size = 512
    daemon_threads = True


class RangeHandler(BaseHTTPRequestHandler):
    """Serves files under `folder`, whole or in ranges, each after `delay` seconds."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, folder: Path, delay: float) -> None:
        self._folder = folder.resolve()
        self._delay = delay
        super().__init__(*args)

    def do_GET(self) -> None:
        time.sleep(self._delay)
        path = (self._folder / self.path.lstrip("/")).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, stop = self._extent(size)
            is_part = "Range" in self.headers
            self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
            if is_part:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            while start < stop:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)

    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests."""

    def _extent(self, size: int) -> tuple[int, int]:
        """First byte of the response, and one past its last."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not match:
            return 0, size
        first, last = match.groups()
        if not first:
            return max(0, size - int(last)), size
        return int(first), min(int(last) + 1, size) if last else size


@contextmanager
def serve(folder: Path, delay: float) -> Iterator[str]:
    """Serve `folder` from a separate process with `delay` seconds per request; yields the URL."""
    command = [sys.executable, "-m", "benchmarks.range_server", str(folder), "--delay", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def main(
    folder: Annotated[Path, typer.Argument(help="The folder to serve.", metavar="FOLDER")],
    delay: Annotated[float, typer.Option(min=0, help="Seconds per request.")] = 0.0,
) -> None:
    handler = partial(RangeHandler, folder=folder, delay=delay)
    with RangeServer(("127.0.0.1", 0), handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    run_script(main, __doc__)
