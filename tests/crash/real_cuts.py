"""Power cuts of a real ext4 file system, at every call of every operation: needs root and loop devices.

    python -m tests.crash.real_cuts [--operations NAME ...] [--every N]

The process dies before its n-th call, or has just returned. In the same moment the file system is shut down
without flushing its log (FS_IOC_SHUTDOWN), which leaves what a cut leaves. Then it is mounted again and
judged, and the operation repeated, as by the harness.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash import shim
from tests.crash.bench import Bench, Report, in_a_fork
from tests.crash.shim import Mode
from tests.memory import folder_in_memory

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2
_MEGABYTES = 24


class RealDisk:
    """An image of an ext4 file system that holds what an operation starts from."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.image, self._start, self.mount = folder / "image", folder / "start", folder / "mount"
        self.mount.mkdir()
        with self._start.open("wb") as file:
            file.truncate(_MEGABYTES << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._start))
        shutil.copyfile(self._start, self.image)
        with self.mounted() as place:
            shutil.copytree(template, place, symlinks=True)
        shutil.copyfile(self.image, self._start)

    def reset(self) -> None:
        shutil.copyfile(self._start, self.image)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The place that the operation works on."""
        _run("mount", "-o", "loop", str(self.image), str(self.mount))
        try:
            yield self.mount / "state"
        finally:
            _run("umount", str(self.mount))

    def cut(self) -> None:
        """What has not reached the disk is lost."""
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)


def cut_at(bench: Bench, disk: RealDisk, point: int) -> list[str]:
    """Cut the power before call `point`, or after the last one; returns what is wrong afterwards."""
    returned = point == len(bench.calls)
    disk.reset()
    with disk.mounted() as place:

        def work() -> None:
            shim.wait_for_disk()
            shim.arm(place, Mode.COUNT if returned else Mode.BEFORE, point)
            bench.operation.run(place)

        how, value = in_a_fork(work)
        disk.cut()
    with disk.mounted() as place:
        faults = bench.judge(place, returned=returned)
    expected = "done" if returned else "killed"
    return faults if how == expected else [*faults, f"it ended otherwise: {how} {value}"]


def _run(*words: str) -> None:
    subprocess.run(words, check=True, env={**os.environ, "LD_PRELOAD": ""})


def main() -> None:
    from tests.crash.harness import LOCAL, operation_of

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", nargs="*", choices=LOCAL, default=list(LOCAL))
    parser.add_argument("--every", type=int, default=1, help="Only every n-th call, and after the last.")
    asked = parser.parse_args()
    if "crash_shim" not in os.environ.get("LD_PRELOAD", ""):
        with tempfile.TemporaryDirectory() as name:
            environment = {**os.environ, "LD_PRELOAD": str(shim.build(Path(name)))}
            words = [sys.executable, "-m", "tests.crash.real_cuts", *sys.argv[1:]]
            raise SystemExit(subprocess.run(words, env=environment).returncode)
    logging.disable()
    warnings.simplefilter("ignore")
    faults = 0
    for name in asked.operations:
        with tempfile.TemporaryDirectory(dir=folder_in_memory()) as folder:
            bench, report = Bench(operation_of(name), Path(folder)), Report()
            (Path(folder) / "disk").mkdir()
            disk = RealDisk(Path(folder) / "disk", bench.template)
            for point in [*range(0, len(bench.calls), asked.every), len(bench.calls)]:
                report.points += 1
                report.note(f"{name}: cut before call {point}", cut_at(bench, disk, point))
        faults += len(report.faults)
        print(
            f"{name}: {len(bench.calls)} calls, {report.points} cuts, {len(report.faults)} faults", flush=True
        )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
