"""The cost of a nightly run that finds nothing to do, and of a store with many artifacts.

- cached: `personsearch run` of a small, fully cached pipeline, as a whole process, against a server.
- store: 10,000 artifacts: listed by `personsearch store ls`, listed in this process, garbage found, and all
  of it deleted. Also the first half of the deletion, after which artifacts are no longer visible, and
  `shutil.rmtree` on the same files, which is the floor of the second half.

    python -m tests.campaigns.operations WORK [--only cached store] [--artifacts 10000] [--rounds 5]
        [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.gc import Garbage, collect, find_garbage
from storage.listing import list_entries
from storage.local import LocalStore
from storage.manifest import FileEntry, Identity, Manifest
from tests.end_to_end.commands import personsearch
from tests.end_to_end.server import served_as_documented
from tests.end_to_end.tiny import draw_tiny_data, write_tiny_config


def measure_cached(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Wall seconds of the whole process, without the first run, which builds everything."""
    draw_tiny_data(work / "data")
    config = write_tiny_config(work, work / "data")
    with served_as_documented(work, config) as server:
        first = personsearch("run", config, environment=server.environment)
        seconds = []
        for number in range(options.rounds):
            started = time.perf_counter()
            again = personsearch(
                "run", config, json_to=work / f"{number}.json", environment=server.environment
            )
            seconds.append(time.perf_counter() - started)
            if (first.status, again.status, set(again.states.values())) != (0, 0, {"cached"}):
                raise AssertionError(f"not everything was cached: {again.states}\n{again.stderr}")
    return {"stages": len(again.states), "seconds": statistics.median(seconds)}


def measure_store(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """CPU and wall seconds of each operation in this process, and wall seconds of the command."""
    write_artifacts(work / "store", options.artifacts)
    for name in ("copy", "other"):
        shutil.copytree(work / "store", work / name)
    store, other = LocalStore(work / "store"), LocalStore(work / "other")
    measured: dict[str, Any] = {"artifacts": options.artifacts}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        result = call()
        measured[f"{name}_cpu_seconds"] = time.process_time() - cpu
        measured[f"{name}_seconds"] = time.perf_counter() - wall
        return result

    timed("command", lambda: personsearch("store", "ls", "--store", work / "store"))
    timed("list", lambda: list_entries(store))
    garbage: Garbage = timed("find_garbage", lambda: find_garbage(store, ()))
    timed("delete", lambda: collect(store, garbage))
    timed("out_of_sight", lambda: _take_away(other, garbage))
    timed("rmtree", lambda: shutil.rmtree(work / "copy"))
    if len(garbage.artifacts) != options.artifacts or list_entries(store) or list_entries(other):
        raise AssertionError("the store was not emptied")
    return measured


def _take_away(store: LocalStore, garbage: Garbage) -> None:
    """The part of a collection that runs under locks."""
    for entry in garbage.artifacts:
        with store.place.making_now(entry.kind, entry.key):
            store.take_away(entry.kind, entry.key)


def write_artifacts(root: Path, count: int) -> None:
    """Artifacts of one file and a manifest, in chains of five, each built from the one before.

    Written without flushing to disk, which would take minutes and is not measured here.
    """
    source: dict[str, str] = {}
    for number in range(count):
        identity = Identity(kind="features", version=1, recipe={"number": number // 5}, inputs=source)
        manifest = Manifest(
            identity=identity,
            key=identity.key,
            content_digest=f"{number:064x}",
            files={"data.bin": FileEntry(size=5, sha256=f"{number:064x}")},
            metrics={},
            sources=source,
            made_by={},
            created="2026-01-01T00:00:00+00:00",
            seconds=1.0,
            peak_memory_bytes=1,
        )
        folder = root / identity.kind / identity.key
        folder.mkdir(parents=True)
        (folder / "data.bin").write_bytes(b"bytes")
        (folder / "manifest.json").write_text(manifest.to_json())
        source = {} if number % 5 == 4 else {"source": f"{identity.kind}/{identity.key}"}


MEASUREMENTS = {"cached": measure_cached, "store": measure_store}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="a new folder")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--artifacts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for name in options.only:
        folder = options.work / name
        folder.mkdir(parents=True)
        results[name] = MEASUREMENTS[name](folder, options)
        for figure, value in results[name].items():
            print(
                f"{name:<8} {figure:<26} {value:10.2f}"
                if isinstance(value, float)
                else f"{name:<8} {figure:<26} {value:>10}"
            )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
