"""Files written behind their caller's back hold what was given, on file systems of every kind."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from storage.feature_store.write_behind import BUFFER_BYTES, WriteBehind

SIZES = (0, 1, 4096, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 2 * BUFFER_BYTES + 5000)


@pytest.fixture
def behind() -> Iterator[WriteBehind]:
    behind = WriteBehind(2 * BUFFER_BYTES)
    yield behind
    behind.close()


def nothing(stat: os.stat_result) -> None:
    """What is to be done when a file is written."""


def random_bytes(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


def write(behind: WriteBehind, path: Path, data: bytes, part: int = 3 << 20) -> None:
    file = behind.create(path)
    for start in range(0, len(data), part):
        file.write(data[start : start + part])
    file.close(nothing).result()


def no_direct_writing(descriptor: int, command: int, flags: int = 0) -> int:
    if command == fcntl.F_SETFL and flags & os.O_DIRECT:
        raise OSError(errno.EINVAL, "as some file systems say")
    return real_fcntl(descriptor, command, flags)


def wants_larger_blocks(descriptor: int, data: memoryview) -> int:
    if real_fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT and len(data) % (1 << 16):
        raise OSError(errno.EINVAL, "as some disks say")
    return real_write(descriptor, data)


def stops_short(descriptor: int, data: memoryview) -> int:
    return real_write(descriptor, data[: max(1, len(data) // 3)])


real_fcntl, real_write = fcntl.fcntl, os.write


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("module", "name", "function"),
    [
        (fcntl, "fcntl", real_fcntl),
        (fcntl, "fcntl", no_direct_writing),
        (os, "write", wants_larger_blocks),
        (os, "write", stops_short),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_holds_what_was_given(
    behind: WriteBehind, tmp_path: Path, monkeypatch, size: int, module: object, name: str, function: Callable
) -> None:
    monkeypatch.setattr(module, name, function)
    data = random_bytes(size)
    write(behind, tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_large_file_is_not_in_the_page_cache(behind: WriteBehind, tmp_path: Path, monkeypatch) -> None:
    flags = []

    def write_and_look(descriptor: int, data: memoryview) -> int:
        flags.append(bool(real_fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
        return real_write(descriptor, data)

    with (tmp_path / "probe").open("wb") as probe:
        try:
            fcntl.fcntl(probe, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            pytest.skip(f"the file system of {tmp_path} writes nothing directly")
    monkeypatch.setattr(os, "write", write_and_look)
    write(behind, tmp_path / "large", random_bytes(2 * BUFFER_BYTES + 4096 + 1))
    assert flags == [True, True, True, False]
    write(behind, tmp_path / "small", random_bytes(4096))
    assert flags[4:] == [False]


def test_what_the_caller_changes_afterwards_is_not_written(
    behind: WriteBehind, tmp_path: Path, monkeypatch
) -> None:
    changed = threading.Event()

    def wait_and_write(descriptor: int, data: memoryview) -> int:
        changed.wait()
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", wait_and_write)
    data = bytearray(random_bytes(BUFFER_BYTES))
    given = bytes(data)
    file = behind.create(tmp_path / "file")
    file.write(memoryview(data))
    data[:] = bytes(len(data))
    changed.set()
    file.close(nothing).result()
    assert (tmp_path / "file").read_bytes() == given


def test_the_caller_waits_for_a_slow_disk(behind: WriteBehind, tmp_path: Path, monkeypatch) -> None:
    go_on, given = threading.Event(), threading.Event()

    def wait_and_write(descriptor: int, data: memoryview) -> int:
        go_on.wait()
        return real_write(descriptor, data)

    def give() -> None:
        write(behind, tmp_path / "file", random_bytes(3 * BUFFER_BYTES))
        given.set()

    monkeypatch.setattr(os, "write", wait_and_write)
    giver = threading.Thread(target=give)
    giver.start()
    assert not given.wait(0.3)
    go_on.set()
    giver.join()
    assert (tmp_path / "file").read_bytes() == random_bytes(3 * BUFFER_BYTES)


def test_a_full_disk_is_said_by_the_file_that_it_stopped(
    behind: WriteBehind, tmp_path: Path, monkeypatch
) -> None:
    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    reached = []
    monkeypatch.setattr(os, "write", full)
    file = behind.create(tmp_path / "stopped")
    for _ in range(5):  # more than all buffers: each must come back
        file.write(random_bytes(BUFFER_BYTES))
    with pytest.raises(OSError, match="No space left"):
        file.close(reached.append).result()
    monkeypatch.undo()
    write(behind, tmp_path / "next", b"whole")
    assert reached == [] and [path.name for path in tmp_path.iterdir()] == ["next"]


def test_what_follows_a_file_may_fail_and_an_abandoned_one_goes(behind: WriteBehind, tmp_path: Path) -> None:
    def fail(stat: os.stat_result) -> None:
        assert (tmp_path / "file").read_bytes() == b"bytes"
        raise ValueError("its digest is another")

    file = behind.create(tmp_path / "file")
    file.write(b"bytes")
    with pytest.raises(ValueError, match="another"):
        file.close(fail).result()
    abandoned = behind.create(tmp_path / "file")
    abandoned.write(b"bytes")
    abandoned.abandon()
    assert list(tmp_path.iterdir()) == []
    write(behind, tmp_path / "file", b"there")
    with pytest.raises(FileExistsError):
        behind.create(tmp_path / "file")


def test_the_hasher_of_what_is_written_is_ready_when_the_file_is_closed(
    behind: WriteBehind, tmp_path: Path
) -> None:
    first, second = random_bytes(BUFFER_BYTES + 1000), random_bytes(3 * BUFFER_BYTES)
    hashers = [hashlib.sha256(), hashlib.sha256()]
    found: list[str] = []
    file = behind.create(tmp_path / "file")
    for data, hasher in zip((first, second), hashers, strict=True):
        file.write(data[:100])
        file.write(data[100:], hasher)
    file.close(lambda stat: found.extend(hasher.hexdigest() for hasher in hashers)).result()
    assert found == [hashlib.sha256(data[100:]).hexdigest() for data in (first, second)]
    assert (tmp_path / "file").read_bytes() == first + second


def test_nobody_waits_for_ever_for_a_file_that_cannot_be_removed(
    behind: WriteBehind, tmp_path: Path, monkeypatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "write", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    file = behind.create(tmp_path / "file")
    file.write(b"bytes")
    with pytest.raises(OSError, match="Read-only"):
        file.close(nothing).result(timeout=30)


def test_a_file_whose_digest_fails_is_not_there(behind: WriteBehind, tmp_path: Path) -> None:
    class Broken:
        def update(self, data: memoryview, /) -> None:
            raise ValueError("no digest")

    reached: list[os.stat_result] = []
    file = behind.create(tmp_path / "file")
    for _ in range(4):  # more than all buffers: each must come back
        file.write(random_bytes(BUFFER_BYTES), Broken())
    with pytest.raises(ValueError, match="no digest"):
        file.close(reached.append).result()
    assert reached == [] and list(tmp_path.iterdir()) == []


def test_what_comes_after_the_end_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    behind = WriteBehind()
    file, abandoned = behind.create(tmp_path / "file"), behind.create(tmp_path / "abandoned")
    behind.close()
    file.write(b"bytes")
    with pytest.raises(RuntimeError, match="after shutdown"):
        file.close(nothing)
    abandoned.abandon()
    assert list(tmp_path.iterdir()) == []


def test_the_stat_of_a_file_is_that_of_its_last_byte(behind: WriteBehind, tmp_path: Path) -> None:
    stats: list[os.stat_result] = []
    file = behind.create(tmp_path / "file")
    file.write(random_bytes(BUFFER_BYTES + 1))
    file.close(stats.append).result()
    now = (tmp_path / "file").stat()
    assert [(s.st_size, s.st_mtime_ns, s.st_ino) for s in stats] == [
        (BUFFER_BYTES + 1, now.st_mtime_ns, now.st_ino)
    ]
