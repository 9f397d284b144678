"""One attempt within bounds: how it ends, and what is wrong with that.

The bounds are the kernel's, so that code that is stuck in a library ends, too: memory (RLIMIT_AS), seconds
of CPU (RLIMIT_CPU), of the clock (an alarm), and bytes of a file (RLIMIT_FSIZE). They hold for this process,
which is one that `campaign` has forked. Files that Python opens are watched; those that Arrow, safetensors or
TensorStore open by themselves are not.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import psutil

from flows.errors import Failure, failure_of
from tests.fuzz.edits import OUTSIDE

MEMORY = 2 << 30
"""Bytes that an attempt may ask for beyond what the process has."""
CLOCK_SECONDS = 120
LARGEST_FILE = 256 << 20
_LONGEST_MESSAGE = 3_000
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",
    "Unable to allocate",
)
_TOUCHING = (
    "open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate",
    "os.link", "os.symlink", "os.chmod", "os.utime", "shutil.rmtree", "shutil.move",
)  # fmt: skip
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")

touched: list[str] = []
"""Paths in a folder `OUTSIDE` that this process has opened or changed."""


def bound() -> None:
    """Set the bounds that hold for all attempts of this process, and watch which files it opens."""
    size = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails with EFBIG
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _NETWORK:
        raise ConnectionRefusedError("the network is out of bounds here")
    if event in _TOUCHING:
        for path in arguments[:2]:
            if isinstance(path, str | bytes) and f"/{OUTSIDE}" in os.path.realpath(os.fsdecode(path)):
                touched.append(os.fsdecode(path))


def tried(attempt: Callable[[Path], object], folder: Path, cpu_seconds: int) -> str | None:
    """Make an attempt; what is wrong with how it ended, or None. A process that breaks a bound is killed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soon = int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soon, resource.RLIM_INFINITY))
    signal.alarm(CLOCK_SECONDS)
    touched.clear()
    fault: str | None = None
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            attempt(folder)
    except BaseException as error:  # a panic of a library in Rust is no Exception
        fault = fault_of(error)
    finally:
        signal.alarm(0)
    return fault or (f"touched {touched[0]}" if touched else None)


def fault_of(error: BaseException) -> str | None:
    """What is wrong with an error that ended an attempt; None for one that tells in one line what to mend."""
    failure: Failure | None = failure_of(error)
    out_of_memory = failure is None and any(words in str(error) for words in _OUT_OF_MEMORY)
    if isinstance(error, MemoryError) or out_of_memory:
        return f"asked for too much memory {_where(error)}"
    if failure is None:
        return f"{type(error).__name__} {_where(error)}: {str(error)[:200]}"
    if "File too large" in failure.message:
        return f"wrote too large a file {_where(error)}"
    if not failure.message.strip():
        return f"a failure without a message {_where(error)}"
    if "\n" in failure.message:
        return f"a message of several lines {_where(error)}: {failure.message[:200]!r}"
    if len(failure.message) > _LONGEST_MESSAGE:
        return f"a message of {len(failure.message)} characters {_where(error)}: {failure.message[:200]!r}"
    return None


def _where(error: BaseException) -> str:
    """The innermost of the project's own lines."""
    project = str(Path(__file__).resolve().parents[2])
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(project)
    ]
    own = [frame for frame in frames if "/.venv/" not in frame.filename and "/tests/" not in frame.filename]
    if not own:
        return "in the attempt itself"
    return f"at {Path(own[-1].filename).relative_to(project)}:{own[-1].name}"
