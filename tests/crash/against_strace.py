"""Does the preloaded library see every call that changes a file? Each operation once below strace.

    python -m tests.crash.against_strace

Calls are compared by kind and name, as threads may change their order and names have random parts; writes by
the files written, since a copy inside the kernel, which strace sees, becomes several writes for the library.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.crash import shim
from tests.crash.bench import Operation
from tests.crash.harness import LOCAL, operation_of
from tests.crash.shim import Call, Kind, Mode

Seen = Counter[tuple[str, str]]
_COPIES = ("sendfile", "copy_file_range")
_WRITES = ("write", "pwrite64", "writev")
_UNSEEN = (
    "pwritev",
    "pwritev2",
    "fallocate",
    "truncate",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "creat",
)
"""Calls that change something, which the library does not know: none may come."""
_TRACED = (
    *(
        "openat",
        "open",
        "fsync",
        "fdatasync",
        "ftruncate",
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
    ),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "mmap", *_COPIES, *_WRITES, *_UNSEEN),
)
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)")
_RANDOM = re.compile(r"\.(\d+\.[0-9a-f]{8}|[0-9a-f]{32})(?=\.partial)|-[0-9a-f]{16}$")


def _plain(path: str) -> str:
    """The last name of a path, without its random part."""
    return _RANDOM.sub("", path.rpartition("/")[2])


def of_the_library(operation: Operation, folder: Path) -> Seen:
    """The calls that the library records."""
    names = {path.stat().st_ino: path.name for path in (folder, *folder.rglob("*"))}
    log = folder.with_name("log")
    with log.open("wb") as file:
        shim.arm(folder, Mode.COUNT, log=file.fileno())
        operation.run(folder)
        shim.disarm()
    return Counter(
        _told(call, names) for call in shim.read_log(log.read_bytes()) if call.kind is not Kind.FAILED
    )


def _told(call: Call, names: dict[int, str]) -> tuple[str, str]:
    if call.kind in (Kind.CREATE, Kind.MAKE_FOLDER):
        names[call.b] = call.name
        return call.kind.name, _plain(call.name)
    if call.kind in (Kind.RENAME, Kind.LINK):
        names[call.c] = call.other
        return call.kind.name, _plain(call.other)
    if call.kind is Kind.UNLINK:
        return call.kind.name, _plain(call.name)
    return call.kind.name, _plain(names[call.a])


def of_strace(name: str, folder: Path) -> Seen:
    """The calls that the kernel sees, by a process per thread."""
    there = {str(path) for path in (folder, *folder.rglob("*"))}
    trace = folder.with_name("trace")
    words = ["strace", "-ff", "-y", "-s", "0", "-o", str(trace), "-e", f"trace={','.join(_TRACED)}"]
    environment = {each: value for each, value in os.environ.items() if each != "LD_PRELOAD"}
    done = subprocess.run(
        [*words, sys.executable, "-m", "tests.crash.against_strace", "--run", name, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [
        line
        for file in sorted(folder.parent.glob("trace.*"))
        for line in file.read_text(errors="replace").splitlines()
        if str(folder) in line
    ]
    return Counter(each for line in lines for each in _of_line(line, str(folder), there))


def _of_line(line: str, root: str, there: set[str]) -> Iterator[tuple[str, str]]:
    found = _CALL.match(line)
    if found is None or int(found[3]) < 0:
        return
    call, arguments = found[1], found[2]
    quoted = re.findall(r'"([^"]*)"', arguments)
    opened = re.findall(rf"\d+<({re.escape(root)}[^>]*)>", line)
    by_name = call not in (*_WRITES, *_COPIES, "fsync", "fdatasync", "ftruncate", "mmap")
    path = _absolute(quoted[-1], opened) if by_name and quoted else (opened or [""])[-1]
    if not path.startswith(root):
        return
    if call in ("openat", "open") and "O_CREAT" in arguments and path not in there:
        there.add(path)
        yield Kind.CREATE.name, _plain(path)
    elif call in ("openat", "open") and "O_TRUNC" in arguments and "O_CREAT" in arguments:
        yield Kind.TRUNCATE.name, _plain(path)
    elif call in (*_WRITES, *_COPIES):
        yield Kind.WRITE.name, _plain(path)
    elif call in ("fsync", "fdatasync"):
        yield Kind.FLUSH.name, _plain(path)
    elif call == "ftruncate":
        yield Kind.TRUNCATE.name, _plain(path)
    elif call.startswith(("rename", "link")):
        before = _absolute(quoted[0], opened)
        moved = {each for each in there if f"{each}/".startswith(f"{before}/")}
        there -= moved if call.startswith("rename") else set()
        there |= {path + each.removeprefix(before) for each in moved}
        yield Kind.RENAME.name if call.startswith("rename") else Kind.LINK.name, _plain(path)
    elif call in ("unlink", "unlinkat", "rmdir"):
        there.discard(path)
        yield Kind.UNLINK.name, _plain(path)
    elif call.startswith("mkdir"):
        there.add(path)
        yield Kind.MAKE_FOLDER.name, _plain(path)
    elif call in _UNSEEN or (call == "mmap" and "PROT_WRITE" in arguments and "MAP_SHARED" in arguments):
        yield f"{call}, which the library does not see", _plain(path)


def _absolute(path: str, folders: list[str]) -> str:
    return path if path.startswith("/") or not folders else f"{folders[0]}/{path}"


def differences(ours: Seen, theirs: Seen) -> list[str]:
    """What only one of both saw, or saw more often."""
    told = []
    for kind, name in sorted({*ours, *theirs}):
        mine, other = ours[kind, name], theirs[kind, name]
        if mine != other and not (kind == Kind.WRITE.name and mine and other):
            told.append(f"{kind} {name}: the library {mine}, strace {other}")
    return told


def compare(name: str) -> tuple[int, list[str]]:
    """Number of calls that strace saw, and the differences."""
    with tempfile.TemporaryDirectory() as folder:
        seen = []
        looks: tuple[Callable[[Path], Seen], ...] = (
            lambda place: of_the_library(operation_of(name), place),
            lambda place: of_strace(name, place),
        )
        for number, look in enumerate(looks):
            place = Path(folder) / str(number) / "state"
            operation_of(name).prepare(place)
            seen.append(look(place))
    return seen[1].total(), differences(*seen)


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        operation_of(sys.argv[2]).run(Path(sys.argv[3]))
        return
    if "crash_shim" not in os.environ.get("LD_PRELOAD", ""):
        with tempfile.TemporaryDirectory() as name:
            environment = {**os.environ, "LD_PRELOAD": str(shim.build(Path(name)))}
            words = [sys.executable, "-m", "tests.crash.against_strace"]
            raise SystemExit(subprocess.run(words, env=environment).returncode)
    different = 0
    for name in LOCAL:
        total, told = compare(name)
        different += len(told)
        print(f"{name}: {total} calls, {len(told)} differences", flush=True)
        for each in told:
            print(f"  {each}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
