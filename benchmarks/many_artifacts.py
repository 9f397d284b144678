"""Listing a store of many artifacts: with an index, without one, and after one more artifact."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.queues
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.options import VAR, Folder, temporary_folder
from benchmarks.start import PERSONSEARCH
from benchmarks.timing import Measurement, report, seconds_of
from flows.cli.json_file import Json
from storage import manifest_index
from storage.lineage import RECORD
from storage.local import LocalStore
from storage.manifest import FILE_NAME, Identity, Manifest
from storage.tags import set_tag

AT_MOST = 5.0
"""Seconds for each command, whatever the number of artifacts up to a million."""
MEMBERS = 100
"""Branches per features artifact; each has a gallery and an evaluation."""
WORKERS = 64
EACH = 10
"""Artifacts of each worker, and artifacts that all of them need."""
_SETTLED_SECONDS = manifest_index.SETTLED_NS / 1e9 + 0.5
_COMMANDS = {"store ls": ("store", "ls"), "store gc": ("store", "gc"), "status": ("status",)}


def draw_store(root: Path, count: int) -> None:
    """A store of `count` artifacts that are manifests alone, chained and recorded as those of a sweep.

    Nothing is flushed to the disk.
    """
    store, made = LocalStore(root), 0
    for chain in _chains():
        for manifest in chain:
            if made == count:
                return
            folder = root / manifest.kind / manifest.key
            folder.mkdir(parents=True)
            (folder / FILE_NAME).write_text(manifest.to_json())
            made += 1
            if made == min(count, 5):
                set_tag(store, "production", manifest.name)


def _chains() -> Iterator[list[Manifest]]:
    """Features and what was learnt from them, without end."""
    number = 0
    while True:
        if number % MEMBERS == 0:
            features = _manifest("features", number, [])
            yield [features]
        chain = [features]
        for kind in ("reid", "gallery", "evaluation"):
            chain.append(_manifest(kind, number, chain))
        yield chain[1:]
        number += 1


def _manifest(kind: str, number: int, before: list[Manifest]) -> Manifest:
    identity = Identity(
        kind=kind,
        version=1,
        recipe={"seed": number},
        inputs={each.kind: each.content_digest for each in before[-1:]},
    )
    names = [each.name for each in before]
    return Manifest(
        identity=identity,
        key=identity.key,
        content_digest=f"{number:064x}",
        files={},
        metrics={"mAP": 0.5},
        sources={each.kind: each.name for each in before[-1:]},
        made_by={RECORD: names},
        created=f"2026-01-{1 + number // 86400 % 28:02}T{number // 3600 % 24:02}:{number // 60 % 60:02}"
        f":{number % 60:02}+00:00",
        seconds=1.0,
        peak_memory_bytes=1,
    )


def measure_many(root: Path, count: int) -> Iterator[Measurement]:
    """Time the commands as whole processes: without an index, with it, and after one more artifact.

    Then let many processes build in that store at once.
    """
    draw_store(root, count)
    for name, words in _COMMANDS.items():
        shutil.rmtree(root / manifest_index.FOLDER, ignore_errors=True)
        yield _measured("every manifest is read, and the index written", name, root, words)
    time.sleep(_SETTLED_SECONDS)
    _run(root, *_COMMANDS["store ls"])  # notes that the folders have come to rest
    for name, words in _COMMANDS.items():
        yield _measured("with the index", name, root, words, at_most=AT_MOST)
    for number, (name, words) in enumerate(_COMMANDS.items()):
        one_more = _manifest("reid", -1 - number, [])
        folder = root / one_more.kind / one_more.key
        folder.mkdir()
        (folder / FILE_NAME).write_text(one_more.to_json())
        yield _measured("one artifact came since", name, root, words)

    yield from _at_once(root)


def _at_once(root: Path) -> Iterator[Measurement]:
    """What it costs that many processes build at once: artifacts of their own, and some that all need."""
    alone = _workers(root, 1, "alone")
    yield Measurement("builds an artifact", "one worker", alone, 1, alone, "s each")
    together = _workers(root, WORKERS, "together")
    name = f"{WORKERS} workers, which share every other one"
    yield Measurement("builds an artifact", name, together, 1, together, "s each")


def _workers(root: Path, count: int, what: str) -> float:
    """Seconds per artifact. Raises AssertionError if one was built twice."""
    forking = multiprocessing.get_context("fork")
    built = forking.SimpleQueue()
    workers = [forking.Process(target=_work, args=(root, f"{what} {n}", what, built)) for n in range(count)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    names = [name for _ in workers for name in built.get()]
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - started
    if len(names) != len(set(names)) or len(names) != (count + 1) * EACH:
        raise AssertionError(f"{len(names)} artifacts were built, {len(set(names))} of them different")
    return seconds / len(names)


def _work(root: Path, own: str, shared: str, built: multiprocessing.queues.SimpleQueue[list[str]]) -> None:
    """Build artifacts that no other worker needs, and those that all need, and say which."""
    logging.getLogger("storage").setLevel(logging.ERROR)  # that they wait for each other is known
    store, mine = LocalStore(root), []
    for number in range(2 * EACH):
        recipe = {"of": own if number % 2 else shared, "number": number}
        identity = Identity(kind="reid", version=1, recipe=recipe, inputs={})
        with store.making(identity) as work:
            if work.made is None:
                (work.path / "weights").write_bytes(b"0" * 1000)
                work.commit(f"{recipe}")
                mine.append(identity.key)
    built.put(mine)


def _measured(
    group: str, name: str, root: Path, words: tuple[str, ...], at_most: float | None = None
) -> Measurement:
    seconds = _run(root, *words)
    return Measurement(group, name, seconds, 1, seconds, "s", at_most=at_most)


def _run(root: Path, *words: str) -> float:
    command = [sys.executable, *PERSONSEARCH, *words, "--store", str(root)]
    return seconds_of(partial(subprocess.run, command, stdout=subprocess.DEVNULL, check=True))


def many_artifacts(
    count: Annotated[
        int, typer.Option(min=1, help="Number of artifacts; each takes two inodes and 4 kB of the disk.")
    ] = 20_000,
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure listings of a store of many artifacts, with its index and without.

    Example: personsearch benchmark many-artifacts --count 1000000
    """
    with temporary_folder("many-artifacts", folder) as temporary:
        report(measure_many(temporary / "store", count), {"count": count}, json_file)
