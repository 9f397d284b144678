"""The first faults that were found in the store, shown by the harness on the code of then and not on today's.

    git worktree add EARLIER 23761c3
    PYTHONPATH=EARLIER:TODAY python -P -m tests.crash.earlier_faults [--real]
    PYTHONPATH=TODAY python -P -m tests.crash.earlier_faults [--real]

It uses only what the storage of both has. With --real (root, loop devices) the power cuts are those of a file
system. Prints a line per fault; the exit status is the number of those that are there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import StorageError
from storage.feature_store import create_features, open_features
from storage.gc import collect, find_garbage
from storage.manifest import Identity
from storage.tags import set_tag, tags
from tests.crash import shim
from tests.crash.bench import Bench, Operation, Outcome, Report, cut_power
from tests.crash.real_cuts import RealDisk, cut_at
from tests.memory import folder_in_memory

try:
    from storage.local import LocalStore
except ImportError:  # as it was called then
    from storage.artifacts import LocalStore  # type: ignore[import-not-found,no-redef]

CHAIN = ("ingest", "detector", "features", "reid", "evaluation")
ROWS, ROW, SHARD = 40, (4, 512), 16
_FEATURES = Identity(kind="features", version=1, recipe={"roi": 16}, inputs={})
_POINTS, _SUBSETS = 12, 20
REAL = "--real"


def store_of(folder: Path) -> Any:
    return LocalStore(folder / "store")


def identity(kind: str) -> Identity:
    return Identity(kind=kind, version=1, recipe={}, inputs={})


def make(store: Any, kind: str, source: str | None) -> None:
    with store.making(identity(kind)) as work:
        if work.made is None:
            (work.path / "data.bin").write_bytes(b"rows of " + kind.encode())
            named = {} if source is None else {"source": f"{source}/{identity(source).key}"}
            work.commit(kind, sources=named)


def make_chain(folder: Path) -> None:
    for source, kind in zip((None, *CHAIN), CHAIN, strict=False):
        make(store_of(folder), kind, source)


def rows_of(shard: int) -> np.ndarray:
    rows = np.random.default_rng(shard).standard_normal((SHARD, *ROW))
    return rows.astype(np.float16)[: ROWS - SHARD * shard]


def begin_features(folder: Path) -> None:
    with store_of(folder).making(_FEATURES) as work:
        writer = create_features(work.path / "features.zarr", ROWS, ROW, rows_per_shard=SHARD)
        writer.write(0, rows_of(0))
        assert len(writer.complete_shards) == 1


def make_features(folder: Path) -> None:
    with store_of(folder).making(_FEATURES) as work:
        if work.made is None:
            with create_features(work.path / "features.zarr", ROWS, ROW, rows_per_shard=SHARD) as writer:
                for shard in sorted({0, 1, 2} - set(writer.complete_shards)):
                    writer.write(SHARD * shard, rows_of(shard))
            work.commit("features")


def outcome_of_features(folder: Path) -> Outcome:
    """Whether the rows are right, shard by shard, and what `store verify` finds."""
    store = store_of(folder)
    found = store.find(_FEATURES.kind, _FEATURES.key)
    with open_features(found.path / "features.zarr") as reader:
        same = [
            np.array_equal(reader.rows(range(SHARD * n, min(SHARD * (n + 1), ROWS))), rows_of(n))
            for n in range(3)
        ]
    return {"rows": same, "problems": store.verify(_FEATURES.kind, _FEATURES.key)}


def nothing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def sound(folder: Path) -> list[str]:
    return []


def tag(folder: Path) -> None:
    set_tag(store_of(folder), "best", f"reid/{identity('reid').key}")


def power_cuts(operation: Operation) -> list[str]:
    """What is wrong after power cuts: of a model of a disk, or with --real of a file system."""
    with tempfile.TemporaryDirectory(dir=folder_in_memory()) as folder:
        bench, report, source = Bench(operation, Path(folder)), Report(is_quiet=True), random.Random(0)
        n_calls = len(bench.calls)
        if REAL in sys.argv:
            (Path(folder) / "disk").mkdir()
            disk = RealDisk(Path(folder) / "disk", bench.template)
            points = [*range(0, n_calls, 3), n_calls]
            found = [(point, fault) for point in points for fault in cut_at(bench, disk, point)]
            return [f"of {len(points)} cuts: before call {point}: {fault}" for point, fault in found]
        points = sorted(source.sample(range(n_calls), min(_POINTS, n_calls)))
        cut_power(bench, report, [*points, n_calls], _SUBSETS, source)
        return [f"of {report.layouts} layouts: {fault}" for fault in report.faults]


def metadata_without_its_bytes() -> list[str]:
    """Fault 1: features that a power cut stopped cannot be resumed, since metadata is there and empty."""
    faults = power_cuts(Operation("features", nothing, make_features, sound, outcome_of_features))
    return [fault for fault in faults if "Expecting value" in fault or "zarr.json" in fault]


def sources_lost_by_a_collection() -> list[str]:
    """Fault 2: a damaged manifest in between makes a collection delete what a tagged artifact came from."""
    with tempfile.TemporaryDirectory(dir=folder_in_memory()) as name:
        folder = Path(name)
        make_chain(folder)
        store = store_of(folder)
        set_tag(store, "best", f"evaluation/{identity('evaluation').key}")
        manifest = folder / "store" / "reid" / identity("reid").key / "manifest.json"
        content = bytearray(manifest.read_bytes())
        content[len(content) // 2] ^= 1
        manifest.write_bytes(content)
        with contextlib.suppress(StorageError):  # refusing is right, and so is keeping
            collect(store, find_garbage(store, ()))
        lost = [kind for kind in CHAIN if not (folder / "store" / kind / identity(kind).key).is_dir()]
    return [f"{', '.join(lost)} deleted although the tagged evaluation was made from them"] if lost else []


def zeros_believed_by_a_resume() -> list[str]:
    """Fault 3: a shard with zeros, and the right size and time, is taken over and committed as whole."""
    found = []
    for note in ("as it was", "empty"):
        with tempfile.TemporaryDirectory(dir=folder_in_memory()) as name:
            folder = Path(name)
            begin_features(folder)
            group = next((folder / "store" / ".work").rglob("features.zarr"))
            shard = next(path for path in (group / "features" / "c" / "0").rglob("*") if path.is_file())
            times, content = shard.stat(), bytearray(shard.read_bytes())
            content[4096:8192] = bytes(4096)
            shard.write_bytes(content)
            os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
            if note == "empty":
                next(group.rglob("digests-0.json")).write_bytes(b"")
            make_features(folder)
            outcome = outcome_of_features(folder)
        if not all(outcome["rows"]):
            told = outcome["problems"] or "no damage found"
            found.append(f"committed with zeros (note of digests {note}); verify says: {told}")
    return found


def a_tag_that_is_lost() -> list[str]:
    """Fault 4: a power cut right after "tagged" loses the tag."""
    return power_cuts(
        Operation("tag", make_chain, tag, sound, lambda folder: {"tags": tags(store_of(folder))})
    )


FAULTS: tuple[Callable[[], list[str]], ...] = (
    metadata_without_its_bytes,
    sources_lost_by_a_collection,
    zeros_believed_by_a_resume,
    a_tag_that_is_lost,
)


def main() -> None:
    if "crash_shim" not in os.environ.get("LD_PRELOAD", ""):
        with tempfile.TemporaryDirectory() as name:
            environment = {**os.environ, "LD_PRELOAD": str(shim.build(Path(name)))}
            words = [sys.executable, "-P", "-m", "tests.crash.earlier_faults", *sys.argv[1:]]
            raise SystemExit(subprocess.run(words, env=environment).returncode)
    logging.disable()
    print(f"storage: {Path(sys.modules['storage.gc'].__file__ or '').parent}")
    there = 0
    for look in FAULTS:
        faults = look()
        there += bool(faults)
        found = f"found {len(faults)} times, first: {faults[0]}" if faults else "not found"
        print(f"{(look.__doc__ or '').strip()}\n  {found}")
    sys.exit(there)


if __name__ == "__main__":
    main()
