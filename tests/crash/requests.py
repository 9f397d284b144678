"""The same on object storage, where a point is a request: death before it, half-way through or after it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import boto3
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import EndpointConnectionError
from botocore.loaders import create_loader

from tests.crash import states
from tests.crash.bench import Outcome, load
from tests.crash.remote_operations import RemoteOperation, check, downloaded, outcome, verified

BUCKET = "crash"
_SERVER = """
import functools, sys
import moto.backends
from moto.server import ThreadedMotoServer
# Each request would list moto's own folder twice, which takes a third of its time.
moto.backends.list_of_moto_modules = functools.cache(lambda f=moto.backends.list_of_moto_modules: [*f()])
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class Cut(Enum):
    BEFORE = "die before it"
    HALF = "die half-way through its body"
    AFTER = "die after its answer"
    REFUSED = "no connection"
    LOST = "answered, but the answer is lost"


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
        with patch("botocore.session.create_loader", cache(create_loader)):  # descriptions are read once
            boto3.client("s3").create_bucket(Bucket=BUCKET)
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
        if mine == point and cut is Cut.HALF:
            _send_half(request)
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


def _send_half(request: Any) -> None:
    """The head of a request and half of its body, or half of the head where it has none."""
    address = urlsplit(request.url)
    body = request.body or b""
    body = body if isinstance(body, bytes | bytearray) else body.read()
    names = {name: _text(value) for name, value in request.headers.items()}
    lines = [f"{request.method} {address.path}?{address.query} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in names.items() if name.lower() != "host"]
    head = "\r\n".join([*lines, "", ""]).encode()
    with socket.create_connection((address.hostname or "", address.port or 80)) as connection:
        connection.sendall(head + body[: len(body) // 2] if len(body) > 1 else head[: len(head) // 2])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class RemoteBench:
    """One operation on object storage; every point has a copy of the store that was prepared once."""

    def __init__(
        self, operation: RemoteOperation, bucket: str, folder: Path, fork: Callable[..., Any]
    ) -> None:
        self.operation, self.folder, self.fork = operation, folder, fork
        self._bucket = bucket.removeprefix("s3://")
        self._prefix = f"{operation.name.replace(' ', '-')}-{os.getpid()}"
        self._number = 0
        self.judged: dict[str, list[str]] = {}
        """By what was left, what is wrong with it."""
        self._objects = boto3.client("s3")
        self._template = folder / operation.name
        self.must(lambda: operation.prepare(self._url(), self._template / "machine"))
        url, machine = self.fresh()

        def whole() -> tuple[list[str], Outcome, list[str]]:
            before = set(sys.modules)
            with counted() as methods:
                operation.run(url, machine)
            return methods, outcome(url, machine.parent), sorted(set(sys.modules) - before)

        self.methods, self.expected, modules = self.must(whole)
        load(modules)

    def points(self) -> Iterator[tuple[Cut, int]]:
        """Every request with what may happen to it; what only reads is the same before and after it."""
        for point, method in enumerate(self.methods):
            changes = method not in ("GET", "HEAD")
            for cut in Cut if changes else (Cut.BEFORE, Cut.REFUSED):
                yield cut, point

    def _url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}-{self._number}"

    def fresh(self) -> tuple[str, Path]:
        """A store with what the operation starts from, and the folder of the machine that runs it."""
        self._number += 1
        place = self.folder / "now"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._template, place, symlinks=True)
        prepared = f"{self._prefix}-0/"
        for each in self._objects.list_objects_v2(Bucket=self._bucket, Prefix=prepared).get("Contents", ()):
            self._objects.copy_object(
                Bucket=self._bucket,
                Key=f"{self._prefix}-{self._number}/{each['Key'].removeprefix(prepared)}",
                CopySource={"Bucket": self._bucket, "Key": each["Key"]},
            )
        return self._url(), place / "machine"

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

        how, _ = self.fork(work)
        state = states.digest(chain(self._parts_of(url), states.parts_of(machine.parent)))
        if state not in self.judged:
            self.judged[state] = self._judge(url, machine)
        return how, self.judged[state]

    def _parts_of(self, url: str) -> Iterator[bytes]:
        """The names and bytes of the objects of a store."""
        prefix = f"{url.rpartition('/')[2]}/"
        for each in self._objects.list_objects_v2(Bucket=self._bucket, Prefix=prefix).get("Contents", ()):
            yield each["Key"].removeprefix(prefix).encode()
            yield self._objects.get_object(Bucket=self._bucket, Key=each["Key"])["Body"].read()

    def _judge(self, url: str, machine: Path) -> list[str]:
        """What is wrong with what was left, and with the operation repeated on it."""

        def look() -> list[str]:
            needed = self.operation.needed
            faults = check(url, machine.parent, needed, downloaded)
            self.operation.run(url, machine)
            faults += [f"repeated: {fault}" for fault in check(url, machine.parent, needed, verified)]
            found = outcome(url, machine.parent)
            return faults if found == self.expected else [*faults, f"another outcome: {found}"]

        how, value = self.fork(look)
        return list(value) if how == "done" else [f"looking at it: {how}: {value}"]
