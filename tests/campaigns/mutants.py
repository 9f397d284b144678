"""Put small mistakes into the code, one at a time, and see whether the tests notice.

    python -m tests.campaigns.mutants --seed 0 --count 60

The mistakes are drawn by a seeded generator, equally many in each group of files. Each is written into a copy
of the project, where the group's tests run. A mistake that no test notices survives: it is a gap in the
tests, or it changes nothing that can be observed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.campaigns.mutations import Mutation, mutations

PROJECT = Path(__file__).resolve().parents[2]

Outcome = Literal["killed", "survived", "timed out"]
"""Of a mutant. A test that waits for ever has noticed it, too."""

_CODE = ("benchmarks", "configs", "data_catalog", "docs", "flows", "personsearch_core", "storage", "tests")
_PRODUCT = ("data_catalog", "flows", "personsearch_core", "storage")
_LIBRARIES = (
    "hypothesis",
    "httpx",
    "numpy",
    "pandas",
    "PIL.Image",
    "pyarrow.compute",
    "pyarrow.parquet",
    "pycocotools.cocoeval",
    "pydantic",
    "scipy.io",
    "torch",
    "torchvision",
    "yaml",
    "zarr",
)
_CORE = "personsearch_core"


@dataclass(frozen=True)
class Group:
    """Files of one concern, by patterns, and the tests that hold them."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    stages: tuple[str, ...] = ()
    """Patterns of files of which only the functions that state a stage belong to the group."""


_STATES_A_STAGE = ("stage", "root_stage")

GROUPS = {
    "keys": Group(
        (
            "data_catalog/views.py",
            "data_catalog/row_digests.py",
            "storage/digests.py",
            "storage/manifest.py",
            "flows/plan/views.py",
        ),
        (
            "tests/storage/test_digests.py",
            "tests/storage/test_manifest.py",
            "tests/flows/plan/test_views.py",
            "tests/flows/stages/test_stages.py",
            "tests/storage/test_older_stores.py",
            "tests/data_catalog/test_views.py",
            "tests/flows/test_golden_keys.py",
        ),
        stages=("flows/stages/*.py",),
    ),
    "commit": Group(
        ("storage/local.py", "storage/work_area.py", "storage/trust.py", "storage/durable.py"),
        (
            "tests/storage/test_durable.py",
            "tests/storage/test_artifacts.py",
            "tests/storage/test_older_stores.py",
        ),
    ),
    "evaluation": Group(
        tuple(
            f"{_CORE}/evaluation/{name}.py"
            for name in (
                "front",
                "rankings",
                "ranking",
                "matching",
                "prw",
                "cuhk_sysu",
                "zheng2017",
                "boxes_per_image",
            )
        ),
        tuple(
            f"tests/{_CORE}/evaluation/test_{name}"
            for name in (
                "ranking.py",
                "rankings.py",
                "listed_prw.py",
                "wrong_variants.py",
                "zheng2017.py",
                "properties.py",
                "front.py",
                "beyond_the_paper.py::test_budgets_of_boxes",
                "oracles.py::test_cuhk_sysu_query_by_query",
                "oracles.py::test_prw",
                "oracles.py::test_zheng2017",
            )
        ),
    ),
    "losses": Group((f"{_CORE}/losses/*.py",), (f"tests/{_CORE}/losses",)),
    "pooling": Group((f"{_CORE}/pooling/*.py",), (f"tests/{_CORE}/pooling",)),
    "sampling": Group(
        (f"{_CORE}/sampling.py", f"{_CORE}/data/sampling.py"),
        (f"tests/{_CORE}/test_sampling.py", f"tests/{_CORE}/data/test_sampling.py"),
    ),
}


@dataclass(frozen=True)
class Mutant:
    """A mutation of one file; `file` is relative to the project."""

    group: str
    file: str
    mutation: Mutation

    def __str__(self) -> str:
        return f"{self.file}:{self.mutation}"


@dataclass(frozen=True)
class Result:
    """What came of a mutant."""

    group: str
    file: str
    line: int
    operator: str
    before: str
    after: str
    outcome: Outcome
    by: str
    """The test that failed; empty where none did."""
    seconds: float


def draw(name: str, count: int, seed: int, project: Path = PROJECT) -> list[Mutant]:
    """Different mutants of a group: first an operator is drawn, then one of its places in all files."""
    rng = random.Random(f"{seed} {name}")
    places: dict[str, list[Mutant]] = {}
    for file, functions in _files(GROUPS[name], project):
        for mutation in mutations((project / file).read_text(), functions):
            places.setdefault(mutation.operator, []).append(Mutant(name, file, mutation))
    drawn = []
    while places and len(drawn) < count:
        operator = rng.choice(sorted(places))
        left = places[operator]
        drawn.append(left.pop(rng.randrange(len(left))))
        if not left:
            del places[operator]
    return drawn


def _files(group: Group, project: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The files of a group, each with the functions that belong to it; none are all of them."""
    found = []
    for patterns, functions in ((group.files, ()), (group.stages, _STATES_A_STAGE)):
        for pattern in patterns:
            files = sorted(path.relative_to(project).as_posix() for path in project.glob(pattern))
            if not files:
                raise FileNotFoundError(f"no file of the project is {pattern}")
            found += [(file, functions) for file in files]
    return found


class Copy:
    """A copy of the project whose files may be changed, and where its tests run.

    Each run is a fork of this process, which has loaded the libraries, so that a run begins at once.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.root.mkdir()
        for name in _CODE:
            shutil.copytree(PROJECT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(PROJECT / "pyproject.toml", self.root)
        if (PROJECT.parent / "shared").is_dir():
            (folder / "shared").symlink_to(PROJECT.parent / "shared")
        self.printed = folder / "printed.txt"
        os.environ["PYTHONPATH"] = str(self.root)

    def run(self, tests: Sequence[str], limit: float | None = None) -> int | None:
        """The exit status of tests, None where they ran past the limit in seconds."""
        process = multiprocessing.get_context("fork").Process(target=self._run, args=(tests, limit is None))
        process.start()
        process.join(limit)
        status = process.exitcode
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whatever the tests left running
        process.join()
        return status

    def _run(self, tests: Sequence[str], keep_bytecode: bool) -> None:
        """In the fork. Bytecode is kept only of files as they are in the project."""
        os.setsid()
        os.nice(10)
        printed = os.open(self.printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.chdir(self.root)
        if not keep_bytecode:
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = not keep_bytecode
        sys.path[:] = [str(self.root), *(path for path in sys.path if Path(path or ".") != PROJECT)]
        for name in [each for each in sys.modules if each.partition(".")[0] in _CODE]:
            del sys.modules[name]
        for name in _PRODUCT:
            found = importlib.import_module(name).__path__[0]
            if Path(found).parent != self.root:
                raise RuntimeError(f"{name} was imported from {found}, not from the copy {self.root}")
        sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))

    def try_mutant(self, mutant: Mutant, limit: float) -> tuple[Outcome, str]:
        """What comes of a mutant, and the test that noticed it."""
        target = self.root / mutant.file
        before, written = target.read_bytes(), target.stat()
        target.write_text(mutant.mutation.source)
        try:
            status = self.run(GROUPS[mutant.group].tests, limit)
        finally:
            target.write_bytes(before)
            os.utime(target, ns=(written.st_atime_ns, written.st_mtime_ns))  # its bytecode stays right
        if status is None:
            return "timed out", ""
        if not status:
            return "survived", ""
        lines = self.printed.read_text(errors="replace").splitlines()
        ends = [line for line in lines if line.startswith(("FAILED", "ERROR", "ImportError"))]
        return "killed", ends[0].split(" - ")[0] if ends else f"exit status {status}"


def run_group(copy: Copy, name: str, mutants: Sequence[Mutant]) -> list[Result]:
    """Try every mutant of a group. Raises RuntimeError where its tests fail without any."""
    started = time.monotonic()
    if copy.run(GROUPS[name].tests):
        raise RuntimeError(f"the tests of {name} fail without a mutant:\n{copy.printed.read_text()[-3000:]}")
    alone = time.monotonic() - started
    print(f"{name}: {len(mutants)} mutants; its tests take {alone:.0f} s", flush=True)
    results = []
    for mutant in mutants:
        started = time.monotonic()
        outcome, by = copy.try_mutant(mutant, limit=4 * alone + 60)
        seconds = round(time.monotonic() - started, 1)
        print(f"  {outcome:9} {seconds:5.1f} s  {mutant}  {by}", flush=True)
        made = mutant.mutation
        results.append(
            Result(name, mutant.file, made.line, made.operator, made.before, made.after, outcome, by, seconds)
        )
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=60, help="mutants of all groups together (default: 60)")
    parser.add_argument("--only", choices=GROUPS, action="append", help="only these groups' share of them")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the outcomes to a file")
    chosen = parser.parse_args(arguments)
    drawn = {}
    for place, name in enumerate(GROUPS):
        share = chosen.count // len(GROUPS) + (place < chosen.count % len(GROUPS))
        if name in (chosen.only or GROUPS):
            drawn[name] = draw(name, share, chosen.seed)
    if chosen.list:
        print(*(mutant for mutants in drawn.values() for mutant in mutants), sep="\n")
        return 0
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for library in _LIBRARIES:
            importlib.import_module(library)
        copy = Copy(Path(folder).resolve())
        for name, mutants in drawn.items():
            results += run_group(copy, name, mutants)
            if chosen.json:
                chosen.json.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
    counts = Counter(each.outcome for each in results)
    print(f"{len(results)} mutants: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
