"""Every file of every kind of artifact, damaged in every way: who tells, and whether the file is named.

    python -m tests.campaigns.damage [--places N] [--only NAME ...] [--work FOLDER] [--json OUT]

A subject is a folder with what uses it next and what verifies it. Each of its files is damaged and put back.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.cli.store import damaged_studies
from flows.errors import ConfigError
from flows.run.embedded_api import IDLE_MINUTES
from flows.run.prefect_api import api
from flows.search import open_index
from flows.search.approximate import GRAPH, GRAPH_CHECKSUMS, VERIFIED, Approximate
from flows.search.layout import EMBEDDINGS, MODEL, SOURCES
from flows.search.verification import verify_index
from personsearch_core.checksums import CHECKSUMS, listed_files, problems
from personsearch_core.errors import PersonSearchError
from personsearch_core.export import LOADED, load_model
from storage.local import LocalStore
from storage.manifest import FILE_NAME
from tests.end_to_end.commands import personsearch
from tests.end_to_end.tiny import draw_tiny_data, write_tiny_config

Damage = Callable[[Path, Path, random.Random], None]
"""Damages a file; the second path is another file beside it."""
Look = Callable[[], str]
"""What is told: '' if nothing is."""


@dataclass(frozen=True)
class Subject:
    """A folder whose files are damaged.

    next_use: what uses it next, and may trust sizes and times. verify: what reads every byte, by name.
    may_be_silent: by file and damage, where the next use does not look and `docs/security.md` says so.
    """

    name: str
    folder: Path
    next_use: Look
    verify: Mapping[str, Look]
    may_be_silent: Callable[[str, str], bool]
    skipped: frozenset[str] = frozenset()
    """Names of folders that are subjects of their own."""
    untold: frozenset[tuple[str, str]] = frozenset()
    """Files and damages that change no result and are not told."""

    def files(self) -> list[Path]:
        """Without those that the folder's use keeps for itself."""
        return sorted(
            path
            for path in self.folder.rglob("*")
            if path.is_file() and path.relative_to(self.folder).parts[0] not in self.skipped
        )


def flipped(path: Path, other: Path, source: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    path.write_bytes(content)


def same_size_and_time(path: Path, other: Path, source: random.Random) -> None:
    """In the same inode, as a disk that changes bytes does."""
    before = path.stat()
    flipped(path, other, source)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ino,
    )


def cut_short(path: Path, other: Path, source: random.Random) -> None:
    os.truncate(path, source.randrange(max(1, path.stat().st_size - 1)))  # more than a last newline


def deleted(path: Path, other: Path, source: random.Random) -> None:
    path.unlink()


def swapped(path: Path, other: Path, source: random.Random) -> None:
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


SAME_STAT, SWAPPED = "same size and time, other bytes", "swapped with another file"
DAMAGES: dict[str, Damage] = {
    "one byte flipped": flipped,
    SAME_STAT: same_size_and_time,
    "cut short": cut_short,
    "deleted": deleted,
    SWAPPED: swapped,
}
NO_NOTE = frozenset({(CHECKSUMS, "deleted")})
BY_PLACE = ("one byte flipped", SAME_STAT, "cut short")
"""Damages that have a place in the file, and are tried at several."""


@dataclass
class Found:
    """How many cases a subject had, by who told; and what was wrong."""

    told: Counter[str]
    faults: list[str]


def damage_all(subject: Subject, places: int, source: random.Random, sample: int | None = None) -> Found:
    """Damage every file in every way, at `places` places where the damage has one; or a random sample."""
    found = Found(Counter(), [])
    contents = {path: path.read_bytes() for path in subject.files()}
    cases = [
        (path, damage)
        for path, content in contents.items()
        for damage in DAMAGES
        for _ in range(places if damage in BY_PLACE else 1)
        if content
    ]
    for path, damage in cases if sample is None else source.sample(cases, min(sample, len(cases))):
        others = [each for each in contents if contents[each] != contents[path]]
        if (damage == SWAPPED and not others) or (path.name, damage) in subject.untold:
            continue
        for look in (subject.next_use, *subject.verify.values()):
            assert not look(), f"{subject.name} is damaged from the start: {look()}"
        other = source.choice(others) if others else path
        with put_back(path, other):
            DAMAGES[damage](path, other, source)
            names = [each.relative_to(subject.folder).as_posix() for each in (path, other)]
            _judge(subject, names[: 2 if damage == SWAPPED else 1], damage, source, found)
    return found


def _judge(subject: Subject, names: Sequence[str], damage: str, source: random.Random, found: Found) -> None:
    """One of the damaged files must be named by whoever tells."""
    used = subject.next_use()
    found.told["the next use" if used else "verification alone"] += 1
    if not _is_named(used, names) and (used or not subject.may_be_silent(names[0], damage)):
        found.faults.append(f"{subject.name}: {names}, {damage}: the next use says {used!r}")
    # In any order: whoever finds damage makes the others look again.
    for what, look in source.sample(list(subject.verify.items()), len(subject.verify)):
        if not _is_named(told := look(), names):
            found.faults.append(f"{subject.name}: {names}, {damage}: {what} says {told!r}")


def _is_named(told: str, names: Sequence[str]) -> bool:
    return any(name in told or Path(name).name in told for name in names)


@contextmanager
def put_back(*paths: Path) -> Iterator[None]:
    """Files have their bytes and times again after the block."""
    before = {path: (path.read_bytes(), path.stat()) for path in paths}
    try:
        yield
    finally:
        for path, (content, stat) in before.items():
            path.write_bytes(content)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def artifacts_of(store: Path) -> Iterator[Subject]:
    """Every artifact of a store."""
    for kind, key in sorted(LocalStore(store).keys()):
        yield artifact(store, kind, key)


def artifact(store: Path, kind: str, key: str) -> Subject:
    def verified() -> str:
        return "; ".join(LocalStore(store).verify(kind, key))

    def inspected(*, verify_first: bool = False) -> str:
        return LocalStore(store, verify_first=verify_first).inspect(kind, key).problem or ""

    return Subject(
        f"{kind}/{key[:6]}",
        store / kind / key,
        inspected,
        {"store verify": verified, "run --verify": partial(inspected, verify_first=True)},
        lambda name, damage: damage == SAME_STAT and name != FILE_NAME,
    )


def exported_model(folder: Path) -> Subject:
    """A folder that `personsearch export` wrote."""
    return Subject(
        "exported model",
        folder,
        lambda: _refusal(lambda: load_model(folder)),
        {"SHA256SUMS": lambda: "; ".join(problems(folder, {*LOADED, *listed_files(folder)}))},
        lambda name, damage: name not in LOADED,
        untold=NO_NOTE,
    )


def search_index(folder: Path) -> Subject:
    """An index with its approximate index; its model is a subject of its own."""

    def searched() -> str:
        index = open_index(folder)
        index.search(embedding=index.embedding(0))
        Approximate(index)  # a search in a damaged graph could end this process
        return ""

    return Subject(
        "search index",
        folder,
        lambda: _refusal(searched),
        {"index --verify": lambda: _refusal(lambda: verify_index(folder))},
        lambda name, damage: (
            name in (SOURCES, CHECKSUMS, GRAPH_CHECKSUMS)
            or name.startswith(f"{EMBEDDINGS}/c/")
            or (name == GRAPH and damage == SAME_STAT)
        ),
        frozenset({MODEL, VERIFIED}),
    )


def study_outputs(store: Path) -> Iterator[Subject]:
    """The tables and pages of studies; nothing reads them but people."""
    for folder in sorted((store / ".studies").glob("*")):
        yield Subject(
            "study outputs",
            folder,
            lambda: "",
            {"store verify": lambda: "; ".join(damaged_studies(LocalStore(store)))},
            lambda name, damage: True,
            untold=NO_NOTE,
        )


def _refusal(use: Callable[[], object]) -> str:
    """The one message of a use that refuses; other exceptions are faults."""
    try:
        use()
    except (ConfigError, PersonSearchError) as error:
        return str(error)
    return ""


def subjects(config: Path) -> Iterator[Subject]:
    """Of a finished run: artifacts, an export with programs, an index, and the tables of a sweep."""
    store, out = config.parent / "store", config.parent / "index"
    yield from artifacts_of(store)
    _made("export", config, config.parent / "model", "--programs", makes=config.parent / "model")
    yield exported_model(config.parent / "model")
    # The detector of a tiny run is unsure of everyone.
    everyone = ("--model", config, "--score-threshold", 0)
    _made("index", config.parent / "prw" / "frames", *everyone, "--approximate", "--out", out, makes=out)
    yield search_index(out)
    _made("sweep", config, "--set", "reid.seed=0", makes=store / ".studies")
    yield from study_outputs(store)


def _made(*words: object, makes: Path) -> None:
    """Run a command, unless what it makes is there."""
    if not makes.exists():
        outcome = personsearch(*words)
        assert outcome.status == 0, outcome.stderr


def prepared(folder: Path) -> Path:
    """The config of a finished run in a folder, which may be there already."""
    if (folder / "store").exists():
        (config,) = folder.glob("*.yaml")
        return config
    draw_tiny_data(folder)
    speed = {"images": [1], "people": [2], "rounds": 1, "variants": ["j3"]}
    config = write_tiny_config(folder, ".", speed=speed)
    _made("run", config, makes=folder / "store")
    return config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", type=int, default=10, help="Places per file for flips and cuts.")
    parser.add_argument("--only", nargs="*", help="Only subjects whose names begin so.")
    parser.add_argument(
        "--work", type=Path, help="Keep the run in this folder, or use the one that is there."
    )
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    source, report = random.Random(0), {}
    with tempfile.TemporaryDirectory(prefix="damage-") as name:
        folder = asked.work or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ |= {"PREFECT_HOME": str(folder / "prefect"), IDLE_MINUTES: "0"}
        with api():
            for subject in subjects(prepared(folder)):
                if asked.only is not None and not subject.name.startswith(tuple(asked.only)):
                    continue
                found = damage_all(subject, asked.places, source)
                report[subject.name] = {
                    "files": len(subject.files()),
                    "told": found.told,
                    "faults": found.faults,
                }
                print(f"{subject.name}: {len(subject.files())} files, {dict(found.told)}", flush=True)
                for fault in found.faults:
                    print(f"  {fault}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(any(each["faults"] for each in report.values()))


if __name__ == "__main__":
    main()
