"""The search page under load, and under attack: latencies of many clients, refusals, and memory."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer

from benchmarks import hostile
from benchmarks.options import PROGRAM, Device
from benchmarks.timing import Measurement, report
from flows.cli.json_file import Json
from flows.errors import ConfigError
from flows.search import Index, open_index

CROPS = 6
"""Pictures of matches that a client looks at after each search."""
_ENDLESS_SECONDS = 20.0


@dataclass
class Load:
    """What clients met: seconds of the answers by kind of request, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[float]:
        return [each for own in self.seconds.values() for each in own]


@dataclass(frozen=True)
class RunningServer:
    """`personsearch serve` in a process of its own; `peak` is its largest resident memory, in bytes."""

    url: str
    process: psutil.Popen
    peak: list[int]

    def serves(self) -> bool:
        return httpx.get(f"{self.url}/api/index", timeout=30).status_code == 200


@contextmanager
def running_server(index: Path, device: str) -> Iterator[RunningServer]:
    """Start it on a free port, with judgements that are thrown away, and watch its memory."""
    with tempfile.TemporaryDirectory() as folder:
        words = ("serve", index, "--port", 0, "--device", device, "--judgements", Path(folder) / "j.jsonl")
        command = [*PROGRAM, *map(str, words)]
        process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            found = re.search(r"http://\S+(?=/)", process.stdout.readline())
            if found is None:
                raise ConfigError(f"{index} cannot be served: see the message above")
            server = RunningServer(found[0], process, [0])
            threading.Thread(target=_watch, args=(server,), daemon=True).start()
            yield server
        finally:
            process.terminate()
            process.wait()


def measure_serving(index: Path, clients: int, seconds: float, device: str) -> Iterator[Measurement]:
    """One client alone, then all of them, then what is to be refused."""
    pictures = _pictures(open_index(index, "cpu"))
    with running_server(index, device) as server:
        asyncio.run(_load(server.url, pictures, 1, min(3.0, seconds)))  # the first requests load modules
        alone = asyncio.run(_load(server.url, pictures, 1, seconds / 6))
        yield from _latencies("1 client", alone)
        before = server.process.memory_info().rss
        many = asyncio.run(_load(server.url, pictures, clients, seconds))
        group = f"{clients} clients"
        yield from _latencies(group, many)
        for error in sorted(set(many.errors))[:5]:
            typer.echo(f"error: {error}", err=True)
        yield Measurement(group, "errors", 0.0, 1, len(many.errors), "errors", at_most=0)
        rate = len(many.all) / seconds
        yield Measurement(group, "answers", 1 / max(rate, 1e-9), 1, rate, "per second")
        yield Measurement(group, "memory", 0.0, 1, (server.peak[0] - before) / 2**20, "MiB more")
        before = server.peak[0]
        yield from _refusals(server)
        yield Measurement(
            "refusals", "memory", 0.0, 1, (server.peak[0] - before) / 2**20, "MiB more", at_most=256
        )
        yield Measurement("refusals", "serves after them", 0.0, 1, float(server.serves()), "", at_least=1)


async def _load(url: str, pictures: list[bytes], clients: int, seconds: float) -> Load:
    load, end = Load(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as session:
        people = (await session.get("/api/index")).json()["people"]
        await asyncio.gather(
            *(_client(session, load, pictures, people, end, random.Random(n)) for n in range(clients))
        )
    return load


async def _client(
    session: httpx.AsyncClient,
    load: Load,
    pictures: list[bytes],
    people: int,
    end: float,
    chance: random.Random,
) -> None:
    """Like a person at the page: half of the searches start with a picture, half with a row of the index."""

    async def ask(kind: str, path: str, content: bytes | None = None) -> httpx.Response | None:
        started = time.perf_counter()
        try:
            answer = await (session.get(path) if content is None else session.post(path, content=content))
        except httpx.HTTPError as error:
            load.errors.append(f"{kind}: {type(error).__name__} {error}")
            return None
        load.seconds[kind].append(time.perf_counter() - started)
        if answer.is_error:
            load.errors.append(f"{kind}: status {answer.status_code}: {answer.text[:200]}")
            return None
        return answer

    while time.monotonic() < end:
        query = f"row={chance.randrange(people)}"
        if chance.random() < 0.5:
            sent = await ask("picture sent", "/api/pictures", chance.choice(pictures))
            body = sent.json() if sent else {"people": []}
            which = "person=1" if body["people"] else "whole_image=true"
            query = f"picture={body.get('picture')}&{which}"
        found = await ask("search", f"/api/search?{query}")
        for match in found.json()["matches"][:CROPS] if found else ():
            await ask("crop", f"/api/people/{match['row']}/crop")


def _latencies(group: str, load: Load) -> Iterator[Measurement]:
    for kind, seconds in sorted(load.seconds.items()):
        for percentile in (50, 95):
            value = float(np.percentile(seconds, percentile))
            yield Measurement(group, f"{kind}, p{percentile}", value, len(seconds), 1000 * value, "ms")


def _refusals(server: RunningServer) -> Iterator[Measurement]:
    """Each kind is refused: the figure is the status."""
    for name, content in (
        ("PNG of 500 megapixels", hostile.png(25_000, 20_000)),
        ("PNG whose comment expands to 1 GiB", hostile.text_bomb(1024)),
        ("JPEG of 5,000 scans", hostile.jpeg_of_many_scans()),
        ("text named .jpg", b"This is a text."),
    ):
        started = time.perf_counter()
        answer = httpx.post(f"{server.url}/api/pictures", content=content, timeout=60)
        seconds = time.perf_counter() - started
        yield Measurement(
            "refusals", name, seconds, 1, answer.status_code, "status", at_least=413, at_most=None
        )
    status, seconds = _endless(httpx.URL(server.url).port or 0)
    yield Measurement("refusals", "endless upload", seconds, 1, status, "status", at_least=408)


def _endless(port: int) -> tuple[int, float]:
    """The status that an upload gets which never ends, and when; status 0 if it is never cut off."""
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=_ENDLESS_SECONDS) as client:
        head = ("POST /api/pictures HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", "", "")
        client.sendall("\r\n".join(head).encode())
        part = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        answer = b""
        while not answer and time.perf_counter() - started < _ENDLESS_SECONDS:
            client.settimeout(0.01)
            try:
                answer = client.recv(1000)
            except TimeoutError:
                client.settimeout(_ENDLESS_SECONDS)
                client.sendall(part)
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 2 else 0, time.perf_counter() - started


def _pictures(index: Index) -> list[bytes]:
    """Encoded pictures that clients send: images of the index, which cost what pictures of its kind cost."""
    rows = np.linspace(0, len(index) - 1, min(50, len(index))).astype(int).tolist()
    paths = sorted({index.path(row) for row in rows if index.row(row)["frame"] is None})
    if not paths:
        raise ConfigError("the index has no images that clients could send: add some")
    return [path.read_bytes() for path in paths]


def _watch(server: RunningServer) -> None:
    while True:
        try:
            server.peak[0] = max(server.peak[0], server.process.memory_info().rss)
        except psutil.Error:
            return
        time.sleep(0.02)


def serve(
    index: Annotated[Path, typer.Argument(help="An index of images.", metavar="INDEX")],
    clients: int = typer.Option(50, min=1, help="Number of clients at once."),
    seconds: float = typer.Option(60.0, min=1, help="Seconds of load."),
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Measure the search page under load and against uploads that it must refuse.

    Each client sends a picture or takes a row of the index, searches, and looks at six crops, over and over.

    Example: personsearch benchmark serve var/demo/index --seconds 20
    """
    settings = {"clients": clients, "seconds": seconds, "device": device}
    report(measure_serving(index, clients, seconds, device), settings, json_file)
