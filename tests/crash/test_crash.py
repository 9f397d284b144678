"""A sample of the crash points and power cuts that `make crash` tries one and all."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.crash import shim
from tests.crash.campaign import Reports, run
from tests.crash.power import Disk, layouts
from tests.crash.shim import Call, Kind
from tests.crash.states import digest

SAMPLE = os.environ.get("PERSONSEARCH_CRASH_SAMPLE", "6")
"""Points per operation."""
needs_shim = pytest.mark.skipif(
    sys.platform != "linux" or shim.compiler() is None, reason="needs Linux and a C compiler (cc)"
)


def faults(reports: Reports) -> list[str]:
    return [f"{name}: {fault}" for name, report in reports.items() for fault in report["faults"]]


@needs_shim
def test_a_death_or_a_power_cut_at_any_call_loses_nothing() -> None:
    """Both from one process: to start each operation takes as long as three of its points."""
    reports = run(["--sample", SAMPLE, "--cuts", "1", "--subsets", "2"])
    assert not faults(reports)
    assert all(report["calls"] and report["points"] for report in reports.values())
    assert all(report["outcomes"]["power: looked at"] for report in reports.values())


@needs_shim
def test_a_death_at_any_request_loses_nothing() -> None:
    reports = run(["--operations", "--requests", "--sample", "1"])
    assert not faults(reports)
    assert all(report["calls"] and report["points"] for report in reports.values())


@needs_shim
def test_the_harness_notices_a_file_that_is_written_in_place() -> None:
    """By a death, and by a power cut after each call."""
    found = faults(run(["--operations", "careless", "--cuts", "1000"]))
    by_power = [fault for fault in found if "power cut after call" in fault]
    for each in (by_power, [fault for fault in found if fault not in by_power]):
        assert any("JSONDecodeError" in fault for fault in each)


def test_states_are_equal_but_for_times_and_processes() -> None:
    note = b'{"pid": %d, "at": %d}'
    assert digest([b"%d" % 70001, note % (4321, 70001)]) == digest([b"%d" % 80001, note % (9876, 80001)])
    assert digest([b"%d" % 70001, note % (4321, 70001)]) != digest([b"%d" % 80001, note % (9876, 80002)])
    assert digest([b"rows"]) != digest([b"row", b"s"])


def disk() -> Disk:
    """A folder 1 with file 2, `old`."""
    return Disk(1, {2: bytearray(b"old")}, {1: {"note": 2}})


def call(
    kind: Kind, a: int = 0, b: int = 0, c: int = 0, name: str = "", other: str = "", data: bytes = b""
) -> Call:
    return Call(kind, a, b, c, name, other, data)


CREATED = call(Kind.CREATE, 1, 3, name="part")
WRITTEN = call(Kind.WRITE, 3, 0, data=b"new rows")
FLUSHED = call(Kind.FLUSH, 3)
RENAMED = call(Kind.RENAME, 1, 1, 3, "part", "note")
NAMED = call(Kind.FLUSH, 1)


def left(calls: list[Call]) -> set[bytes | None]:
    """What `note` may be after the last call."""
    found = set()
    for layout in layouts(disk(), calls, [len(calls)], 200, random.Random(0)):
        if layout.returned:
            inode = layout.disk.folders[1].get("note")
            found.add(None if inode is None else bytes(layout.disk.files.get(inode, b"")))
    return found


def test_what_is_flushed_lasts_and_what_is_not_may_be_lost_in_any_order() -> None:
    assert left([CREATED, WRITTEN, RENAMED]) == {b"old", b"", b"new rows"}
    assert left([CREATED, WRITTEN, FLUSHED, RENAMED]) == {b"old", b"new rows"}
    assert left([CREATED, WRITTEN, FLUSHED, RENAMED, NAMED]) == {b"new rows"}
    assert left([CREATED, WRITTEN, RENAMED, NAMED]) == {b"", b"new rows"}


def test_a_write_that_is_lost_before_a_later_one_leaves_zeros() -> None:
    more = call(Kind.WRITE, 2, 6, data=b"tail")
    assert left([call(Kind.WRITE, 2, 3, data=b"mid"), more]) == {
        b"old",
        b"oldmid",
        b"oldmidtail",
        b"old\0\0\0tail",
    }


def test_a_disk_is_laid_out_as_it_was_read(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"1")
    (tmp_path / "a" / "d").write_bytes(b"22")
    found = Disk.of(tmp_path / "a")
    found.write(tmp_path / "copy")
    assert Disk.of(tmp_path / "copy").digest() == found.digest()
    assert (tmp_path / "copy" / "b" / "c").read_bytes() == b"1"
