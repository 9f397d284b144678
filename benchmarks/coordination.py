"""What it costs machines to share a store on object storage: requests, and seconds to get an artifact.

Machines are threads of one process, each with a local folder of its own. Object storage is moto's S3, with a
delay per request.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import typer

from benchmarks.options import VAR, Folder, temporary_folder
from benchmarks.timing import Measurement, report
from flows.cli.json_file import Json
from storage.manifest import Identity
from storage.remote import RemoteStore

ARTIFACTS = 2
"""Artifacts that each machine builds for itself, one after the other."""
BUILD_SECONDS = 2.0
"""How long the artifact that all machines need takes to build."""
_BUCKET = "shared"


@dataclass
class CountingServer:
    """A WSGI application behind a delay, which counts the requests."""

    app: Callable[..., Iterable[bytes]]
    delay: float
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
        time.sleep(self.delay)
        return self.app(environ, start_response)


@contextmanager
def object_storage(delay: float) -> Iterator[CountingServer]:
    """moto's S3 with an empty bucket, which the block's environment names."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    counting = CountingServer(DomainDispatcherApplication(create_backend_app), delay)
    server = make_server("127.0.0.1", 0, counting, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    access = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with patch.dict(os.environ, access):
            boto3.client("s3").create_bucket(Bucket=_BUCKET)
            yield counting
    finally:
        server.shutdown()


def measure(folder: Path, machines: int, delay: float) -> Iterator[Measurement]:
    """One machine alone, many with artifacts of their own, and many that need the same one.

    Raises AssertionError if an artifact was built twice.
    """
    logging.getLogger("storage").setLevel(logging.ERROR)  # that they wait for each other is known
    with object_storage(delay) as server, ThreadPoolExecutor(machines) as pool:
        stores = list(
            pool.map(lambda n: RemoteStore(f"s3://{_BUCKET}/store", folder / str(n)), range(machines))
        )
        list(pool.map(lambda store: store.find("reid", "0" * 32), stores))  # connects
        for group, chosen in (("one machine", stores[:1]), (f"{machines} machines", stores)):
            before, started = server.requests, time.perf_counter()
            if not all(pool.map(partial(_build_own, group), chosen)):
                raise AssertionError("an artifact of one machine was built by another")
            seconds = (time.perf_counter() - started) / ARTIFACTS
            requests = (server.requests - before) / (ARTIFACTS * len(chosen))
            yield Measurement(f"{group}, artifacts of their own", "requests", seconds, 1, requests, "each")
            yield Measurement(f"{group}, artifacts of their own", "time", seconds, 1, seconds, "s each")
        before = server.requests
        told = list(pool.map(_build_shared, stores))
        built = [at for is_mine, at in told if is_mine]
        if len(built) != 1:
            raise AssertionError(f"the artifact was built {len(built)} times")
        last = max(at for _, at in told) - built[0]
        requests = (server.requests - before) / machines
        group = f"{machines} machines, one artifact"
        yield Measurement(group, "requests per machine", last, 1, requests, "each")
        yield Measurement(group, "the last has it after the builder by", last, 1, last, "s")


def _build_own(group: str, store: RemoteStore) -> bool:
    """Whether this machine has built all artifacts that no other one needs."""
    return all(_build(store, f"{group}: {store.root.name} {number}") for number in range(ARTIFACTS))


def _build_shared(store: RemoteStore) -> tuple[bool, float]:
    """Whether this machine has built what all need, and when it had it."""
    is_mine = _build(store, "of all", BUILD_SECONDS)
    return is_mine, time.perf_counter()


def _build(store: RemoteStore, what: str, seconds: float = 0.0) -> bool:
    """Whether this machine has built it, or has found it."""
    with store.making(Identity(kind="reid", version=1, recipe={"of": what}, inputs={})) as work:
        if work.made is not None:
            return False
        time.sleep(seconds)
        (work.path / "weights").write_bytes(b"0" * 1000)
        work.commit(what)
        return True


def coordination(
    machines: Annotated[int, typer.Option(min=2, help="Number of machines.")] = 64,
    delay: Annotated[float, typer.Option(min=0.0, help="Seconds that a request takes.")] = 0.02,
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure what it costs many machines to share a store on object storage.

    Example: personsearch benchmark coordination --machines 64
    """
    with temporary_folder("coordination", folder) as temporary:
        report(measure(temporary, machines, delay), {"machines": machines, "delay": delay}, json_file)
