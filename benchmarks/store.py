"""The feature store against its floors: what the same machine does without a store, in the same run."""

from __future__ import annotations

import math
import mmap
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self
from unittest.mock import patch

import numpy as np
import torch
import typer

from benchmarks.options import VAR, Folder, Rounds, numbers, temporary_folder
from benchmarks.other_stores import OTHER_STORES
from benchmarks.range_server import serve
from benchmarks.timing import Measurement, medians_in_turn, report
from flows.cli.json_file import Json
from personsearch_core.training.row_batches import RowsReadAhead
from storage import durable
from storage.feature_store import FeatureReader, create_features, features_bytes, open_features
from storage.feature_store.buffers import allocate_buffer
from storage.space import require_free_space

Draw = Callable[[], np.ndarray]
"""Returns the next random batch of row numbers."""

BATCH_ROWS = 128
COLD_THREADS = 16
REQUEST_SECONDS = 0.02
MILLION = 10**6

_BLOCK_ROWS = 256
_OPEN = r"""
import re, sys, time
from pathlib import Path
from storage.feature_store import open_features
start = time.perf_counter()
reader = open_features(sys.argv[1])
seconds = time.perf_counter() - start
reader.rows(range(0, len(reader), len(reader) // 128))
print(seconds, 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]))
"""


def measure_store(
    folder: Path, n_rows: int, row_shape: Sequence[int], rounds: int = 30
) -> Iterator[Measurement]:
    """Write float16 rows into the empty `folder`, read them back in every way, and yield each figure.

    Needs up to three times the size of the rows on disk. Raises StorageError if less is free.
    """
    require_free_space(folder, 3 * features_bytes(n_rows, row_shape), what="the benchmark")
    shape = (n_rows, *row_shape)
    yield from _writing(folder, shape)
    plain = np.memmap(folder / "plain", np.float16, "r", shape=shape)
    draw = _random_batches(n_rows)
    with open_features(folder / "store", "disk") as reader:
        _check(reader, plain, draw())
        yield from _warm(folder, reader, plain, draw, rounds)
        yield from _cold(folder, reader, plain, draw, max(5, rounds // 3))
        yield from _loader(folder, reader, plain, draw, rounds)
    yield from _remote(folder, plain, draw, max(5, rounds // 3))
    shutil.rmtree(folder / "store")
    for name in OTHER_STORES:
        yield from _other(name, folder / "other", plain, draw, rounds)
    yield from _opening(folder / "million")


def _writing(folder: Path, shape: tuple[int, ...], rounds: int = 3) -> Iterator[Measurement]:
    """Whole arrays from memory to disk, flushed, so that neither side can leave work to the page cache."""
    block = np.random.default_rng(0).standard_normal((_BLOCK_ROWS, *shape[1:]), np.float32).astype(np.float16)

    def write_plain() -> None:
        (folder / "plain").unlink(missing_ok=True)
        array = np.memmap(folder / "plain", np.float16, "w+", shape=shape)
        for start in range(0, shape[0], _BLOCK_ROWS):
            array[start : start + _BLOCK_ROWS] = _stamped(block, start, shape[0])
        array.flush()

    def write_store() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        with create_features(folder / "store", shape[0], shape[1:]) as writer:
            for start in range(0, shape[0], _BLOCK_ROWS):
                writer.write(start, _stamped(block, start, shape[0]))

    def write_store_and_flush_once() -> None:
        """Without a flush on the way: each file and folder is flushed once, when all are written."""
        with patch("os.fsync", lambda descriptor: None):
            write_store()
        for path in (*sorted((folder / "store").rglob("*")), folder / "store"):
            durable.flush(path)

    contenders = {"memmap": write_plain, "store": write_store, "once": write_store_and_flush_once}
    seconds = medians_in_turn(contenders, rounds, before=os.sync)
    n_bytes = 2 * math.prod(shape)
    yield Measurement(
        "write", "memmap, flushed", seconds["memmap"], rounds, n_bytes / seconds["memmap"] / 1e9, "GB/s"
    )
    ratio = seconds["memmap"] / seconds["store"]
    yield Measurement(
        "write", "store, flushed and digested", seconds["store"], rounds, ratio, "x floor", at_least=0.8
    )
    ratio = seconds["store"] / seconds["once"]
    yield Measurement(
        "write", "store, to one flushed once at the end", seconds["store"], rounds, ratio, "x", at_most=1.05
    )


def _stamped(block: np.ndarray, start: int, n_rows: int) -> np.ndarray:
    """The block with each row's number in its first two values, cut at the end of the array."""
    rows = np.arange(start, min(start + len(block), n_rows))
    flat = block.reshape(len(block), -1)
    flat[: len(rows), 0], flat[: len(rows), 1] = rows // 2048, rows % 2048
    return block[: len(rows)]


def _warm(
    folder: Path, reader: FeatureReader, plain: np.memmap, draw: Draw, rounds: int
) -> Iterator[Measurement]:
    """Warm reads, by how the page cache was filled: its folios are large only if a file was read in order.

    Also the cost of bare reads, without a mapping: the same extents by one thread per core.
    """
    threads = len(os.sched_getaffinity(0))
    with _BareReads(folder, reader, threads) as bare:
        contenders = {
            "memmap": lambda: plain[draw()],
            "disk": lambda: reader.rows(draw()),
            "bare": lambda: bare.read(draw()),
        }
        for first, read in {"in order": _read_in_order, "at random": _read_at_random}.items():
            _forget(folder, plain)
            read(reader, plain)
            _read_at_random(reader, plain)
            seconds = medians_in_turn(contenders, rounds)
            for name, shown, bound in (
                ("memmap", "memmap fancy indexing", None),
                ("disk", f"store, tier {reader.tier}", 1.3),
                ("bare", f"{threads} threads of bare pread", None),
            ):
                what, ratio = f"{shown}, first read {first}", seconds[name] / seconds["memmap"]
                yield Measurement("warm", what, seconds[name], rounds, ratio, "x floor", at_most=bound)


def _read_in_order(reader: FeatureReader, plain: np.memmap) -> None:
    for start in range(0, len(plain), _BLOCK_ROWS):
        reader.rows(np.arange(start, min(start + _BLOCK_ROWS, len(plain))))
        plain[start : start + _BLOCK_ROWS].max()


def _read_at_random(reader: FeatureReader, plain: np.memmap) -> None:
    """Read every row once, as an epoch does."""
    order = np.random.default_rng(1).permutation(len(plain))
    for start in range(0, len(plain), BATCH_ROWS):
        reader.rows(order[start : start + BATCH_ROWS])
        plain[order[start : start + BATCH_ROWS]].max()


def _forget(folder: Path, plain: np.memmap) -> None:
    """Evict the store and the plain file from the page cache."""
    mapping = plain.base
    assert isinstance(mapping, mmap.mmap)
    mapping.madvise(mmap.MADV_DONTNEED)  # a mapped page stays
    for file in (folder / "plain", *_shard_files(folder)):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("store/features/c/*/0/0/0"), key=lambda file: int(file.parts[-4]))


class _BareReads:
    """Bare positioned reads of the rows' extents by several threads."""

    def __init__(self, folder: Path, reader: FeatureReader, threads: int) -> None:
        self._descriptors = [os.open(file, os.O_RDONLY) for file in _shard_files(folder)]
        self._row_bytes = reader.rows([0]).nbytes
        self._buffer = allocate_buffer((BATCH_ROWS, self._row_bytes), np.uint8)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def read(self, indices: np.ndarray) -> None:
        wanted = list(enumerate(indices.tolist()))

        def read(stripe: int) -> None:
            for place, row in wanted[stripe :: self._threads]:
                shard, slot = divmod(row, _BLOCK_ROWS)
                os.preadv(self._descriptors[shard], (self._buffer[place].data,), slot * self._row_bytes)

        list(self._pool.map(read, range(self._threads)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for descriptor in self._descriptors:
            os.close(descriptor)


def _cold(
    folder: Path, reader: FeatureReader, plain: np.memmap, draw: Draw, rounds: int
) -> Iterator[Measurement]:
    with _BareReads(folder, reader, COLD_THREADS) as bare:
        contenders = {
            "bare": lambda: bare.read(draw()),
            "disk": lambda: reader.rows(draw()),
            "memmap": lambda: plain[draw()],
        }
        seconds = medians_in_turn(contenders, rounds, before=lambda: _forget(folder, plain))
    names = {
        "bare": f"{COLD_THREADS} threads of bare pread",
        "disk": f"store, tier {reader.tier}",
        "memmap": "memmap fancy indexing",
    }
    for name, shown in names.items():
        ratio = seconds[name] / seconds["bare"]
        bound = 1.3 if name == "disk" else None
        yield Measurement("cold", shown, seconds[name], rounds, ratio, "x floor", at_most=bound)


class _PlainRows:
    """A memmap with the interface of a reader."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        self._flat = array.reshape(len(array), -1)

    def buffer(self, n_rows: int) -> np.ndarray:
        return allocate_buffer((n_rows, *self.shape[1:]), self.dtype)

    def rows(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        target = None if out is None else out.reshape(len(indices), -1)
        return np.take(self._flat, indices, axis=0, out=target, mode="clip").reshape(-1, *self.shape[1:])


def _loader(
    folder: Path, reader: FeatureReader, plain: np.memmap, draw: Draw, rounds: int
) -> Iterator[Measurement]:
    """Batches per second from the training loader; the consumer touches each row."""
    per_round = 64
    _forget(folder, plain)
    _read_in_order(reader, plain)
    _read_at_random(reader, plain)

    def consume(source: FeatureReader | _PlainRows) -> None:
        wanted = [draw() for _ in range(per_round)]
        batches = RowsReadAhead(source, BATCH_ROWS, torch.device("cpu"))
        for indices, rows in zip(wanted, batches(wanted), strict=True):
            if not _is_right(rows.numpy(), indices):
                raise AssertionError("the loader returned the wrong rows")

    contenders = {"memmap": lambda: consume(_PlainRows(plain)), "disk": lambda: consume(reader)}
    seconds = medians_in_turn(contenders, max(5, rounds // 3))
    rates = {name: per_round / value for name, value in seconds.items()}
    ratio = rates["disk"] / rates["memmap"]
    yield Measurement("loader", "memmap behind it", seconds["memmap"], rounds, rates["memmap"], "batches/s")
    yield Measurement(
        "loader", f"store behind it, tier {reader.tier}", seconds["disk"], rounds, rates["disk"], "batches/s"
    )
    yield Measurement(
        "loader",
        "store to memmap",
        seconds["disk"],
        rounds,
        ratio,
        "x floor",
        at_least=0.9,
    )


def _remote(folder: Path, plain: np.memmap, draw: Draw, rounds: int) -> Iterator[Measurement]:
    with serve(folder, REQUEST_SECONDS) as url, open_features(f"{url}/store") as reader:
        _check(reader, plain, draw())
        for _ in range(3):  # fetches the shard indexes, once
            reader.rows(draw())
        seconds = medians_in_turn({"remote": lambda: reader.rows(draw())}, rounds)["remote"]
        name = f"store, tier {reader.tier}, HTTP with {1000 * REQUEST_SECONDS:g} ms per request"
        yield Measurement("remote", name, seconds, rounds, 1000 * seconds, "ms per batch", at_most=120)


def _other(name: str, path: Path, plain: np.memmap, draw: Draw, rounds: int) -> Iterator[Measurement]:
    """Another store with the same rows, warm; it is removed afterwards."""
    read = OTHER_STORES[name](path, plain)
    rounds = max(5, rounds // 5)
    indices = draw()
    if not _is_right(read(indices), indices):
        raise AssertionError(f"{name} returned the wrong rows")
    seconds = medians_in_turn({"memmap": lambda: plain[draw()], "other": lambda: read(draw())}, rounds)
    yield Measurement("warm", name, seconds["other"], rounds, seconds["other"] / seconds["memmap"], "x floor")
    shutil.rmtree(path)


def _opening(path: Path) -> Iterator[Measurement]:
    """A million tiny rows, opened in a separate process."""
    with create_features(path, MILLION, (8,), flush=False) as writer:
        writer.write(0, np.broadcast_to(np.arange(8, dtype=np.float16), (MILLION, 8)))
    command = [sys.executable, "-c", _OPEN, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak_bytes = (float(figure) for figure in re.findall(r"[\d.e-]+", done.stdout))
    yield Measurement("open", "10^6 rows", seconds, 1, seconds, "s", at_most=1.0)
    yield Measurement(
        "open", "10^6 rows, peak memory of the process", seconds, 1, peak_bytes / 1e6, "MB", at_most=200
    )


def _random_batches(n_rows: int) -> Draw:
    generator = np.random.default_rng(0)
    return lambda: generator.integers(0, n_rows, BATCH_ROWS)


def _is_right(rows: np.ndarray, indices: np.ndarray) -> bool:
    flat = rows.reshape(len(rows), -1)
    return bool(np.array_equal(flat[:, 0].astype(np.int64) * 2048 + flat[:, 1].astype(np.int64), indices))


def _check(reader: FeatureReader, plain: np.memmap, indices: np.ndarray) -> None:
    if not np.array_equal(reader.rows(indices), plain[indices]):
        raise AssertionError(f"tier {reader.tier} returned rows that differ from those written")


def store(
    rows: int = typer.Option(8192, min=256, help="Number of records to write and read."),
    record_shape: str = typer.Option("512,24,8", help="Shape of a float16 record, comma-separated."),
    rounds: Rounds = 30,
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure the feature store against memmap, bare reads and other stores.

    Example: personsearch benchmark store --rows 2048
    """
    shape = numbers("--record-shape", record_shape)
    with temporary_folder("store", folder) as temporary:
        settings = {"rows": rows, "record_shape": shape, "rounds": rounds}
        report(measure_store(temporary, rows, shape, rounds), settings, json_file)
