"""Clients of object storage take turns: fsspec's, which the stores use, and obstore, which is in Rust.

Listing, sending and fetching go to moto's S3 server, ranges also to the range server, which waits before each
answer. Both run on this machine and take its cores, moto for most of the time; so the CPU time of the client
alone is measured besides.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import typer

from benchmarks.options import VAR, Folder, Rounds, temporary_folder
from benchmarks.range_server import serve
from benchmarks.timing import Measurement, medians_in_turn, report
from flows.cli.json_file import Json
from storage.feature_store.remote import REQUESTS_AT_ONCE, fetch

REQUEST_SECONDS = 0.02
BUCKET = "benchmark"
PART_BYTES = 1 << 20
RANGE_BYTES = 196_608
"""A row. One range of each part is read: rows of a random batch seldom lie near each other."""

Listing = Callable[[], int]
Wanted = Sequence[tuple[str, int]]
"""Files and offsets of ranges."""

_SERVER = """
import sys, time
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
backend.create_bucket(sys.argv[1], "us-east-1")
for number in range(int(sys.argv[2])):
    backend.put_object(sys.argv[1], f"listed/features/{number % 100:032x}/version/c/{number}", b"x")
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Client:
    """One client's way to do what a store asks for; paths are `bucket/name`, or names on the range server."""

    list_all: Listing
    send: Callable[[Path], None]
    fetch_all: Callable[[Sequence[str]], list[bytes]]
    ranges: Callable[[Wanted], list[bytes]]
    ranges_over_http: Callable[[Wanted], list[bytes]]


def measure_clients(folder: Path, objects: int, parts: int, rounds: int) -> Iterator[Measurement]:
    """Yield all figures; the empty `folder` holds the parts."""
    source = folder / "parts"
    source.mkdir()
    rng = np.random.default_rng(0)
    for number in range(parts):
        (source / f"{number}").write_bytes(rng.bytes(PART_BYTES))
    with _s3(objects) as endpoint, serve(source, REQUEST_SECONDS) as http:
        clients = {
            "s3fs and fsspec's HTTP": _fsspec(endpoint, http),
            "obstore by fsspec's interface": _obstore_by_fsspec(endpoint, http),
            "obstore": _obstore(endpoint, http),
        }
        yield from _compared(f"list {objects} objects", {n: c.list_all for n, c in clients.items()}, rounds)
        for client in clients.values():
            if client.list_all() != objects:
                raise AssertionError("a client did not list every object")
        sending = {name: _bound(client.send, source) for name, client in clients.items()}
        yield from _compared(f"send {parts} MB", sending, rounds)
        names = [f"parts/{number}" for number in range(parts)]
        fetching = {name: _bound(client.fetch_all, names) for name, client in clients.items()}
        yield from _compared(f"fetch {parts} MB", fetching, rounds)
        wanted = [(f"{number}", int(rng.integers(PART_BYTES - RANGE_BYTES))) for number in range(parts)]
        _check(clients, source, names, wanted)
        in_bucket = [(f"parts/{name}", offset) for name, offset in wanted]
        reading = {name: _bound(client.ranges, in_bucket) for name, client in clients.items()}
        yield from _compared(f"{parts} ranges, S3", reading, rounds)
        reading = {name: _bound(client.ranges_over_http, wanted) for name, client in clients.items()}
        delay = f"HTTP with {1000 * REQUEST_SECONDS:g} ms per request"
        yield from _compared(f"{parts} ranges, {delay}", reading, rounds)


def _compared(
    group: str, contenders: Mapping[str, Callable[[], object]], rounds: int
) -> Iterator[Measurement]:
    """Each against the first: how many times quicker, and how many times less CPU time of this process."""
    used: dict[str, list[float]] = {name: [] for name in contenders}

    def timed(name: str, call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            start = time.process_time()
            call()
            used[name].append(time.process_time() - start)

        return run

    for call in contenders.values():
        call()  # opens connections
    seconds = medians_in_turn({name: timed(name, call) for name, call in contenders.items()}, rounds)
    cpu = {name: float(np.median(values)) for name, values in used.items()}
    first = next(iter(contenders))
    for name in contenders:
        yield Measurement(group, name, seconds[name], rounds, seconds[first] / seconds[name], "x")
        yield Measurement(group, f"{name}, CPU", cpu[name], rounds, cpu[first] / cpu[name], "x")


def _check(
    clients: Mapping[str, Client], source: Path, names: Sequence[str], wanted: Sequence[tuple[str, int]]
) -> None:
    files = [(source / name.removeprefix("parts/")).read_bytes() for name in names]
    right = [(source / name).read_bytes()[offset : offset + RANGE_BYTES] for name, offset in wanted]
    for name, client in clients.items():
        in_bucket = [(f"parts/{path}", offset) for path, offset in wanted]
        if (
            client.fetch_all(names) != files
            or client.ranges(in_bucket) != right
            or client.ranges_over_http(wanted) != right
        ):
            raise AssertionError(f"{name} returned the wrong bytes")


def _bound(call: Callable[[Any], object], argument: object) -> Callable[[], object]:
    return lambda: call(argument)


@contextmanager
def _s3(objects: int) -> Iterator[str]:
    """The endpoint of an S3 server in a process of its own, with a bucket of `objects` objects to list."""
    command = [sys.executable, "-c", _SERVER, BUCKET, str(objects)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def _fsspec(endpoint: str, http: str) -> Client:
    s3 = fsspec.filesystem(
        "s3",
        endpoint_url=endpoint,
        key="testing",
        secret="testing",
        use_listings_cache=False,
        config_kwargs={"max_pool_connections": REQUESTS_AT_ONCE},
    )
    return _by_fsspec(s3, fsspec.filesystem("http"), http)


def _obstore_by_fsspec(endpoint: str, http: str) -> Client:
    from obstore.fsspec import FsspecStore

    opened: Any = FsspecStore  # its types know no HTTP
    plain = {"allow_http": True}
    s3 = opened("s3", config=_config(endpoint), client_options=plain)
    return _by_fsspec(s3, opened("http", client_options=plain), http)


def _by_fsspec(s3: Any, over_http: Any, http: str) -> Client:
    def send(source: Path) -> None:
        files = sorted(source.iterdir())
        s3.put([str(file) for file in files], [f"{BUCKET}/parts/{file.name}" for file in files])

    def fetch_all(names: Sequence[str]) -> list[bytes]:
        found = s3.cat([f"{BUCKET}/{name}" for name in names])
        return [found[f"{BUCKET}/{name}"] for name in names]

    def ranges(system: Any, base: str, wanted: Wanted) -> list[bytes]:
        starts = [offset for _, offset in wanted]
        found = fetch(
            system, [f"{base}/{name}" for name, _ in wanted], starts, [each + RANGE_BYTES for each in starts]
        )
        failed = next((each for each in found if isinstance(each, Exception)), None)
        if failed is not None:
            raise failed
        return [bytes(each) for each in found if not isinstance(each, Exception)]

    return Client(
        lambda: len(s3.find(f"{BUCKET}/listed", detail=True)),
        send,
        fetch_all,
        lambda wanted: ranges(s3, BUCKET, wanted),
        lambda wanted: ranges(over_http, http, wanted),
    )


def _obstore(endpoint: str, http: str) -> Client:
    import obstore
    from obstore.store import HTTPStore, S3Store

    s3 = S3Store(BUCKET, config=_config(endpoint), client_options={"allow_http": True})
    over_http = HTTPStore.from_url(http, client_options={"allow_http": True})

    async def put(source: Path) -> None:
        await asyncio.gather(
            *(obstore.put_async(s3, f"parts/{file.name}", file) for file in source.iterdir())
        )

    async def get(names: Sequence[str]) -> list[bytes]:
        async def one(name: str) -> bytes:
            found = await obstore.get_async(s3, name)
            return bytes(await found.bytes_async())

        return list(await asyncio.gather(*map(one, names)))

    async def ranges(store: Any, wanted: Wanted) -> list[bytes]:
        async def one(name: str, offset: int) -> bytes:
            return bytes(await obstore.get_range_async(store, name, start=offset, length=RANGE_BYTES))

        return list(await asyncio.gather(*(one(*each) for each in wanted)))

    return Client(
        lambda: sum(map(len, obstore.list(s3, "listed", chunk_size=1000))),
        lambda source: asyncio.run(put(source)),
        lambda names: asyncio.run(get(names)),
        lambda wanted: asyncio.run(ranges(s3, wanted)),
        lambda wanted: asyncio.run(ranges(over_http, wanted)),
    )


def _config(endpoint: str) -> Any:
    return {
        "endpoint": endpoint,
        "access_key_id": "testing",
        "secret_access_key": "testing",
        "region": "us-east-1",
    }


def object_clients(
    objects: int = typer.Option(10_000, min=1, help="Number of objects to list."),
    parts: int = typer.Option(128, min=1, help="Number of files of 1 MB to send, fetch and read a range of."),
    rounds: Rounds = 5,
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure the S3 client of the stores, s3fs, against obstore.

    Needs `moto[server]`, `s3fs` and `obstore`.

    Example: personsearch benchmark object-clients --parts 16
    """
    with temporary_folder("object-clients", folder) as temporary:
        settings = {"objects": objects, "parts": parts, "rounds": rounds}
        report(measure_clients(temporary, objects, parts, rounds), settings, json_file)
