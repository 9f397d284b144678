"""What built an artifact: recorded in its manifest, never part of its key."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.parallel import cores

if TYPE_CHECKING:
    import torch

_PACKAGES = ("flows", "personsearch_core", "data_catalog", "storage")
_LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "zarr",
    "scipy",
    "pillow",
    "prefect",
    "dask",
    "pytorch-metric-learning",
)


@functools.cache
def source_digest() -> str:
    """Digest of this project's own Python source: equal digests mean that the same code made it."""
    root = Path(__file__).resolve().parents[1]
    hasher = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            hasher.update(path.relative_to(root).as_posix().encode() + b"\0")
            hasher.update(path.read_bytes())
    return hasher.hexdigest()[:16]


def code() -> str:
    """What must be equal on machines that compute together, in words."""
    return f"personsearch {_version('personsearch')} (source {source_digest()}) and torch {_version('torch')}"


def made_by(threads: int | None) -> dict[str, Any]:
    """Source, library versions and machine; `threads`: intra-op threads, on which byte identity depends."""
    return {
        "source": source_digest(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": threads,
    }


def chosen_threads(threads: int | None) -> int:
    """The number of CPU threads: a config's `threads`, else that of OMP_NUM_THREADS, else one per core."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # the rest is for nested loops
    return threads or (int(said) if said.isdecimal() else 0) or cores()


def computed_on(device: torch.device) -> dict[str, Any]:
    """What of a machine decides on the bits of what torch computes: processor, threads and libraries."""
    import torch

    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": device.type,
        "processor": processor,
        "threads": torch.get_num_threads(),
        "libraries": {name: _version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
    }


def cpu_name() -> str:
    """As the kernel calls it; elsewhere the architecture."""
    return field_of(Path("/proc/cpuinfo"), "model name") or platform.machine()


def field_of(file: Path, name: str) -> str | None:
    """The first value of a field of a file with lines such as `Model: NVIDIA H200`; None without one."""
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            field, _, value = line.partition(":")
            if field.strip() == name:
                return value.strip()
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
