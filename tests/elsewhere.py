"""A system that is not Linux, simulated: `python -m tests.elsewhere [PYTEST ARGUMENTS]`.

The project's packages find no /proc, no `fcntl`, no `resource`, and an `os` and a `signal` without what only
some systems have. Locks are those of Windows' `msvcrt`, made of Linux' locks of byte ranges, and a file that
this process has open is not deleted. The packages are imported, with `--all` every one, then pytest runs. Not
simulated: paths of Windows, and that it renames nothing that is open.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import importlib
import io
import os
import pkgutil
import signal
import struct
import sys
from types import ModuleType
from typing import Any

PACKAGES = ("storage", "data_catalog", "personsearch_core", "flows")
MODULES = frozenset({"fcntl", "resource"})
OF_OS = frozenset(
    {
        *("O_CLOEXEC", "O_DIRECT", "O_NONBLOCK", "RWF_NOWAIT", "fork", "getloadavg", "getuid", "killpg"),
        *("posix_fadvise", "pread", "preadv", "pwrite", "sched_getaffinity", "setsid", "waitid"),
    }
)
LESS = {
    "test_artifacts.py::test_the_memory_of_children_counts": "that is read from `resource`",
    "test_artifacts.py::test_readers_see_it_all_the_time_while_it_is_replaced": "an open file stays",
    "test_artifacts.py::test_kill_9_of_the_writer_frees_the_lock": "its process has Linux' locks",
    "test_store_machine.py::TestStoreMachine": "its processes have Linux' locks",
}
"""Tests of storage that are left out, and why: docs/machines.md says what is less."""
_LOCK = "hhqqi4x"
"""struct flock of x86-64 and Arm: type, whence, start, length, process."""


OF_SIGNAL = frozenset({"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1"})


class _Lacking(ModuleType):
    """A module as far as it is there elsewhere; what tests replace in it is replaced here, too."""

    def __init__(self, real: ModuleType, lacks: frozenset[str]) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(real=real, lacks=lacks)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__["lacks"]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self.__dict__["real"], name)


def _locking(descriptor: int, mode: int, count: int) -> None:
    """`msvcrt.locking`: bytes from the file's position on, for this descriptor alone, or PermissionError."""
    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    wanted = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, start, count, 0)
    writable = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    if writable:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        return
    # Linux locks only what may be written; the project only asks with such a descriptor.
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
    if struct.unpack(_LOCK, found)[0] != fcntl.F_UNLCK:
        raise PermissionError("locked")


def _windows_locks() -> ModuleType:
    found = ModuleType("msvcrt")

    def locking(descriptor: int, mode: int, count: int) -> None:
        try:
            _locking(descriptor, mode, count)
        except BlockingIOError as error:
            raise PermissionError(error.errno, error.strerror) from error

    found.__dict__.update(LK_NBLCK=2, LK_UNLCK=0, locking=locking)
    return found


READ: list[str] = []
"""The project's modules that have looked at /proc."""


def hide() -> None:
    """From here on, imports of the project's packages are those of another system."""
    real_import, real_module = builtins.__import__, importlib.import_module
    replaced = {
        "os": _Lacking(os, OF_OS),
        "signal": _Lacking(signal, OF_SIGNAL),
        "msvcrt": _windows_locks(),
    }

    def is_ours(depth: int) -> bool:
        return sys._getframe(depth + 1).f_globals.get("__name__", "").partition(".")[0] in PACKAGES

    def found(name: str) -> ModuleType | None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return replaced.get(name)

    def import_(name: str, *rest: Any, **named: Any) -> Any:
        special = found(name) if is_ours(1) else None
        return special if special is not None else real_import(name, *rest, **named)

    def import_module(name: str, package: str | None = None) -> Any:
        special = found(name) if is_ours(1) else None
        return special if special is not None else real_module(name, package)

    builtins.__import__, importlib.import_module = import_, import_module
    for name in ("unlink", "remove"):
        setattr(os, name, _unless_open(getattr(os, name)))
    for module, names in (
        (os, ("stat", "lstat", "open", "listdir", "scandir")),
        (io, ("open",)),
        (builtins, ("open",)),
    ):
        for name in names:
            setattr(module, name, _without_proc(getattr(module, name)))


def _without_proc(function: Any) -> Any:
    def without_proc(path: Any = ".", *rest: Any, **named: Any) -> Any:
        if isinstance(path, (str, os.PathLike)) and f"{os.fspath(path)}/".startswith("/proc/"):
            reader = _caller()
            if reader.partition(".")[0] in PACKAGES:
                READ.append(reader)
                raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *rest, **named)

    return without_proc


def _unless_open(remove: Any) -> Any:
    opened = os.scandir  # the one that sees /proc

    def unless_open(path: Any, **named: Any) -> None:
        if _caller().partition(".")[0] in PACKAGES:
            found = os.stat(path, dir_fd=named.get("dir_fd"))
            for each in opened("/proc/self/fd"):
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(found, each.stat()):
                        raise PermissionError(13, "The process cannot access the file: it is in use", path)
        remove(path, **named)

    return unless_open


def _caller() -> str:
    """The nearest module on the stack that is not of the standard library."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in sys.stdlib_module_names:
            break
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


def import_all(packages: tuple[str, ...]) -> int:
    """Import every module of the packages; how many there are. Raises AssertionError if one reads /proc."""
    count = 0
    for package in packages:
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(found.name)
            count += 1
    assert not READ, f"these read /proc when they are imported: {sorted(set(READ))}"
    return count


if __name__ == "__main__":
    import pytest

    hide()
    packages = PACKAGES if "--all" in sys.argv else ("storage",)
    print(f"{import_all(packages)} modules are imported without /proc, {' and '.join(sorted(MODULES))}")
    left_out = [f"--deselect=tests/storage/{name}" for name in LESS]
    sys.exit(pytest.main([*left_out, *(word for word in sys.argv[1:] if word != "--all")]))
