"""What this machine offers a run, what would slow it down, and what would stop it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import psutil

from data_catalog.parallel import cores as usable_cores
from storage.descriptors import open_files_limit
from storage.errors import StorageError
from storage.locks import exclusive_now
from storage.space import in_units
from storage.urls import is_remote, local_path

Level = Literal["ok", "slow", "broken"]

GIB = 1 << 30
LITTLE_MEMORY = 12 * GIB
"""The largest stage of configs/paper takes this much (docs/benchmarks.md)."""
LITTLE_DISK = 10 * GIB
FEW_FILES = 1024
"""The usual soft limit of open files; a run opens a few hundred, a Dask cluster more."""

PACKAGES = ("torch", "torchvision", "prefect", "zarr", "dask", "pyarrow", "pandas", "numpy", "pycocotools")
DATA_VARIABLES = ("PERSONSEARCH_STORE", "PERSONSEARCH_DATA", "PERSONSEARCH_SAMPLES", "PERSONSEARCH_CONFIG")


@dataclass(frozen=True)
class Fact:
    """One thing about the machine: its value, whether it hampers a run, and what to do about it."""

    name: str
    value: str
    level: Level = "ok"
    advice: str | None = None


def examine(store: str | None) -> Iterator[Fact]:
    """Everything that a run depends on, quick facts first; `store` is the store to try, a folder or a URL."""
    yield Fact("Python", sys.version.split()[0])
    yield Fact("packages", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    yield from _processors()
    yield _memory()
    yield from _devices()
    yield from _places(store)
    yield _open_files()
    yield from _prefect()
    yield from _variables()


def _processors() -> Iterator[Fact]:
    cores = usable_cores()
    busy = psutil.getloadavg()[0]
    value = f"{cores}, with a load of {busy:.1f}"
    if busy > cores:
        yield Fact("cores", value, "slow", "other programs are using the cores: see top")
    else:
        yield Fact("cores", value)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) < cores:
        advice = f"stages use {threads} of {cores} cores: unset it, or set run.threads"
        yield Fact("OMP_NUM_THREADS", threads, "slow", advice)


def _memory() -> Fact:
    limit = _cgroup_limit()
    memory = psutil.virtual_memory()
    total = min(memory.total, limit or memory.total)
    free = min(memory.available, total)
    value = f"{in_units(total)}, {in_units(free)} available"
    if limit is not None and limit < memory.total:
        value += " (limited by the container)"
    if free < LITTLE_MEMORY:
        return Fact(
            "memory",
            value,
            "slow",
            f"the largest stages of configs/paper take {in_units(LITTLE_MEMORY)}: lower detector.training."
            "batch_size and reid.identities_per_batch if a stage is killed",
        )
    return Fact("memory", value)


def _cgroup_limit() -> int | None:
    """The memory limit of the container, in bytes; None without one."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def _devices() -> Iterator[Fact]:
    import torch

    from personsearch_core.models.compute import has_bf16

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            yield Fact(f"GPU {index}", f"{name}, {in_units(total)}, {in_units(free)} free")
    elif torch.version.cuda is not None and Path("/proc/driver/nvidia").exists():
        yield Fact(
            "GPU",
            "there is an NVIDIA driver, but torch cannot use it",
            "slow",
            f"torch {torch.__version__} needs a driver for CUDA {torch.version.cuda}: update the driver",
        )
    else:
        yield Fact("GPU", "none", "slow", "the paper's settings need one; the demo and the samples do not")
    if has_bf16("cpu"):
        yield Fact("bfloat16 on the CPU", "yes")
    else:
        yield Fact("bfloat16 on the CPU", "no", "slow", "keep compute.precision at fp32 on the CPU")


def _places(store: str | None) -> Iterator[Fact]:
    from prefect.settings import get_current_settings

    if store is None:
        yield Fact("store", "not chosen", advice="name it in the config, or pass --store to check it here")
    elif is_remote(store):
        yield _object_store(store)
    else:
        yield _folder("store", local_path(store), LITTLE_DISK)
    yield _folder("Prefect's home", Path(get_current_settings().home), GIB // 10)
    yield _folder("temporary files", Path(tempfile.gettempdir()), GIB)


def _folder(name: str, path: Path, needed: int) -> Fact:
    """Whether files can be written and locked under `path`, which may not exist yet, and the free space."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as folder:
            problem = _lock_problem(Path(folder) / "lock")
    except OSError as error:
        reason = error.strerror or str(error)
        return Fact(name, str(path), "broken", f"cannot write to {place} ({reason}): choose another folder")
    free = shutil.disk_usage(place).free
    value = f"{path}, {in_units(free)} free"
    if problem is not None:
        return Fact(name, value, "broken", problem)
    if free < needed:
        return Fact(name, value, "slow", f"less than {in_units(needed)} free: runs may fill this disk")
    return Fact(name, value)


def _lock_problem(path: Path) -> str | None:
    """Some network file systems have no locks, or give one to two holders."""
    try:
        with exclusive_now(path) as first, exclusive_now(path) as second:
            if first and not second:
                return None
    except OSError as error:
        return f"files cannot be locked here ({error.strerror}): choose a local disk"
    return "file locks do not exclude each other here: choose a local disk"


def _object_store(url: str) -> Fact:
    from storage.opening import open_store

    try:
        store = open_store(url)
        count = len(list(store.keys()))
    except (StorageError, OSError) as error:
        return Fact("store", url, "broken", str(error))
    return Fact("store", f"{url}, {count:,} artifacts")


def _open_files() -> Fact:
    soft, hard = open_files_limit()
    if soft < FEW_FILES:
        return Fact("open files", f"at most {soft}", "slow", f"raise the limit: ulimit -n {min(hard, 4096)}")
    return Fact("open files", f"at most {soft:,}")


def _prefect() -> Iterator[Fact]:
    from flows.run.prefect_api import configured_url, require_answer

    url = configured_url()
    if url is None:
        yield Fact("Prefect API", "embedded: a run starts one when it needs it")
        yield _loopback()
        return
    try:
        require_answer(url)
    except ConnectionError as error:
        yield Fact("Prefect API", url, "broken", str(error))
    else:
        yield Fact("Prefect API", f"{url} answers")


def _loopback() -> Fact:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return Fact("ports", "a server on 127.0.0.1 can be reached")
    except OSError as error:
        advice = "the embedded Prefect API needs a port on 127.0.0.1: check the container's network"
        return Fact("ports", str(error), "broken", advice)


def _variables() -> Iterator[Fact]:
    for name in DATA_VARIABLES:
        value = os.environ.get(name)
        may_be_new = name == "PERSONSEARCH_STORE" or (value and is_remote(value))
        if value and not may_be_new and not Path(value).expanduser().exists():
            yield Fact(f"${name}", value, "broken", "this path does not exist: correct or unset the variable")
        elif value:
            yield Fact(f"${name}", value)
