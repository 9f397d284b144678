"""Stores behind URLs: a real HTTP server with ranges, a real S3 server, and fsspec's memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from moto.server import ThreadedMotoServer

from benchmarks.range_server import RangeHandler, RangeServer, serve
from storage.errors import StorageError
from storage.feature_store import open_features

N_ROWS = 600


@pytest.fixture(params=["http", "s3", "memory"])
def remote_root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict]]:
    """The URL at which `tmp_path` appears (after a call of `upload`), and options for its file system."""
    if request.param == "http":
        with serve(tmp_path, delay=0) as url:
            yield url, {}
    elif request.param == "memory":
        yield f"memory://{tmp_path.name}", {}
    else:
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield "s3://bucket", {"endpoint_url": f"http://{host}:{port}", "key": "k", "secret": "s"}
        server.stop()


def upload(folder: Path, url: str, options: dict) -> None:
    if not url.startswith("http"):
        system, path = fsspec.core.url_to_fs(url, **options)
        system.mkdirs(path, exist_ok=True)
        system.put(str(folder), f"{path}/{folder.name}", recursive=True)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_rows_from_a_url(make_store, make_rows, remote_root, compression):
    url, options = remote_root
    rows = make_rows(N_ROWS)
    upload(make_store(rows, compression=compression), url, options)
    reader = open_features(f"{url}/store", storage_options=options)
    assert reader.tier == "remote"
    indices = np.random.default_rng(0).integers(0, N_ROWS, (5, 40))
    assert np.array_equal(reader.rows(indices), rows[indices])
    assert np.array_equal(reader.rows(np.arange(N_ROWS)), rows)
    assert reader.index.num_rows == N_ROWS
    in_memory = open_features(f"{url}/store", memory_budget=rows.nbytes, storage_options=options)
    assert in_memory.tier == "memory"
    assert np.array_equal(in_memory.rows(indices), rows[indices])
    with pytest.raises(StorageError, match="is not a feature store"):
        open_features(f"{url}/absent", storage_options=options)
    with pytest.raises(StorageError, match="not on this machine"):
        open_features(f"{url}/store", "disk", storage_options=options)


def test_tensorstore_is_told_where_the_array_is(
    make_rows, remote_root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A layout whose rows cannot be read straight from its files."""
    url, options = remote_root
    if not url.startswith("s3"):
        pytest.skip("the other servers have no options")
    rows = make_rows(10)
    zarr.create_group(tmp_path / "unsharded").create_array("features", data=rows, chunks=(2, *rows.shape[1:]))
    upload(tmp_path / "unsharded", url, options)
    with pytest.raises(StorageError, match="TensorStore cannot take key, secret of storage_options"):
        open_features(f"{url}/unsharded", storage_options=options)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    where = {"client_kwargs": {"endpoint_url": options["endpoint_url"]}}
    reader = open_features(f"{url}/unsharded", storage_options=where)
    assert np.array_equal(reader.rows([7, 0]), rows[[7, 0]])


def test_damage_behind_a_url_is_named(make_store, make_rows, tmp_path: Path):
    path = make_store(make_rows(N_ROWS))
    (path / "features/c/2/0/0/0").unlink()
    file = path / "features/c/1/0/0/0"
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    file.write_bytes(content)
    (path / "features/c/0/0/0/0").write_bytes(content[:100])
    with serve(tmp_path, delay=0) as url:
        reader = open_features(f"{url}/store")
        with pytest.raises(StorageError, match=r"shard 0 .* is truncated"):
            reader.rows([3])
        with pytest.raises(StorageError, match=r"shard 1 .* CRC-32C"):
            reader.rows([511])
        with pytest.raises(StorageError, match=r"shard 2 \(rows 512 to 599\) is missing"):
            reader.rows([512])


def test_a_server_that_is_not_there():
    with pytest.raises(StorageError, match="cannot be opened"):
        open_features("http://127.0.0.1:9/store")
    with pytest.raises(StorageError, match="cannot be opened"):
        open_features("nosuch://somewhere/store")


class CountedHandler(RangeHandler):
    """Notes how many requests are answered at once, at most."""

    at_once = most = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        with self.lock:
            CountedHandler.at_once += 1
            CountedHandler.most = max(self.most, self.at_once)
        try:
            super().do_GET()
        finally:
            with self.lock:
                CountedHandler.at_once -= 1


def test_the_rows_of_a_batch_are_asked_for_at_once(make_store, make_rows, tmp_path: Path):
    """One after another, 128 requests would take as many round trips."""
    rows = make_rows(2000)
    make_store(rows)
    handler = partial(CountedHandler, folder=tmp_path, delay=0.02)
    with RangeServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            reader = open_features(f"http://127.0.0.1:{server.server_port}/store")
            indices = np.random.default_rng(0).integers(0, 2000, 128)
            assert np.array_equal(reader.rows(indices), rows[indices])
        finally:
            server.shutdown()
            thread.join()
    assert CountedHandler.most >= 16
