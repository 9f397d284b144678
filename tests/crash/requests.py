"""The same on object storage, where a point is a request: before it, after it, or its answer lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import EndpointConnectionError

from storage.listing import list_entries
from storage.remote import RemoteStore
from tests.storage.making import make_artifact

BUCKET = "crash"
_SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class Cut(Enum):
    BEFORE = "die before it"
    AFTER = "die after its answer"
    REFUSED = "no connection"
    LOST = "answered, but the answer is lost"


@dataclass(frozen=True)
class RemoteOperation:
    """Like `operations.Operation`, over a store's URL and the folder of one machine."""

    name: str
    prepare: Callable[[str, Path], None]
    run: Callable[[str, Path], None]


@contextmanager
def server() -> Iterator[str]:
    """The URL of a bucket on a local S3 server, a process of its own; credentials are in the environment."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        subprocess.run(
            [sys.executable, "-c", f"import boto3; boto3.client('s3').create_bucket(Bucket={BUCKET!r})"],
            check=True,
        )
        yield f"s3://{BUCKET}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def counted(cut: Cut | None = None, point: int = -1) -> Iterator[list[str]]:
    """Gather the methods of all requests, and cut the one with number `point` off."""
    methods: list[str] = []
    send = AIOHTTPSession.send

    async def sending(session: AIOHTTPSession, request: Any) -> Any:
        mine = len(methods)
        methods.append(request.method)
        if mine == point and cut is Cut.BEFORE:
            os.kill(os.getpid(), 9)
        if mine == point and cut is Cut.REFUSED:
            raise EndpointConnectionError(endpoint_url=request.url)
        answer = await send(session, request)
        if mine == point and cut is Cut.AFTER:
            os.kill(os.getpid(), 9)
        if mine == point and cut is Cut.LOST:
            raise EndpointConnectionError(endpoint_url=request.url)
        return answer

    with patch.object(AIOHTTPSession, "send", sending):
        yield methods


def upload(url: str, machine: Path) -> None:
    store = RemoteStore(url, machine)
    make_artifact(store, "reid", sources=(make_artifact(store, "ingest"),))  # type: ignore[arg-type]


def nothing(url: str, machine: Path) -> None:
    machine.mkdir(parents=True, exist_ok=True)


def uploaded(url: str, machine: Path) -> None:
    """Made by another machine."""
    upload(url, machine.with_name("other"))
    nothing(url, machine)


def download(url: str, machine: Path) -> None:
    store = RemoteStore(url, machine)
    assert all(store.find(entry.kind, entry.key) for entry in list_entries(store))


def check(url: str, folder: Path) -> list[str]:
    """What another machine finds wrong with the store."""
    store = RemoteStore(url, folder / "reader")
    found = []
    for entry in list_entries(store):
        faults = store.verify(entry.kind, entry.key)
        if faults or store.find(entry.kind, entry.key) is None:
            found.append(f"{entry.name}: {'; '.join(faults)}")
    return found + [f"{name} is damaged" for name in store._listed(".damaged")]


def outcome(url: str, folder: Path) -> dict[str, str]:
    store = RemoteStore(url, folder / "reader")
    return {
        entry.name: store.manifest_of(entry.kind, entry.key).content_digest for entry in list_entries(store)
    }


REMOTE = {
    operation.name: operation
    for operation in (
        RemoteOperation("upload", nothing, upload),
        RemoteOperation("download", uploaded, download),
    )
}


class RemoteBench:
    """One operation on object storage; every point has a store of its own."""

    def __init__(
        self, operation: RemoteOperation, bucket: str, folder: Path, fork: Callable[..., Any]
    ) -> None:
        self.operation, self.bucket, self.folder, self.fork = operation, bucket, folder, fork
        self.number = 0
        url, machine = self.fresh()

        def whole() -> tuple[list[str], dict[str, str]]:
            with counted() as methods:
                operation.run(url, machine)
            return methods, outcome(url, self.folder)

        self.methods, self.expected = self.must(whole)

    def points(self) -> Iterator[tuple[Cut, int]]:
        """Every request with what may happen to it; what only reads is the same before and after it."""
        for point, method in enumerate(self.methods):
            changes = method not in ("GET", "HEAD")
            for cut in Cut if changes else (Cut.BEFORE, Cut.REFUSED):
                yield cut, point

    def fresh(self) -> tuple[str, Path]:
        """A store with what the operation starts from, and the folder of the machine that runs it."""
        self.number += 1
        url, machine = (
            f"{self.bucket}/{self.operation.name}-{os.getpid()}-{self.number}",
            self.folder / "machine",
        )
        for each in ("machine", "other", "reader"):
            shutil.rmtree(self.folder / each, ignore_errors=True)
        self.must(lambda: self.operation.prepare(url, machine))
        return url, machine

    def must(self, work: Callable[[], Any]) -> Any:
        how, value = self.fork(work)
        if how != "done":
            raise SystemExit(f"{self.operation.name}: it fails without being cut off: {how} {value}")
        return value

    def cut(self, cut: Cut, point: int) -> tuple[str, list[str]]:
        """How the operation ended when request `point` was cut off, and what is wrong with what it left."""
        url, machine = self.fresh()

        def work() -> None:
            with counted(cut, point):
                self.operation.run(url, machine)

        def look() -> list[str]:
            faults = check(url, self.folder)
            self.operation.run(url, machine)
            faults += [f"repeated: {fault}" for fault in check(url, self.folder)]
            found = outcome(url, self.folder)
            return faults if found == self.expected else [*faults, f"another outcome: {found}"]

        how, _ = self.fork(work)
        judged, value = self.fork(look)
        return how, list(value) if judged == "done" else [f"looking at it: {judged}: {value}"]
