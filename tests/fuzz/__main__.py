"""Fuzz what the project reads: `make fuzz [MINUTES=10] [TARGET=...]`.

    python -m tests.fuzz [--minutes 10] [--target NAME ...] [--list]

First the inputs of `corpus.jsonl`, which were found before, are tried again. Then each target gets new ones,
from the seed at which its last campaign ended. What is found is printed and appended to the corpus;
executions, time and the next seed go into `record.json`. The exit status is 1 if anything is found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from data_catalog.adapters import adapter_names
from tests.fuzz.campaign import Finding, Outcome, fuzz, retried
from tests.fuzz.target import Target

CORPUS = Path(__file__).with_name("corpus.jsonl")
RECORD = Path(__file__).with_name("record.json")
ROOMS = {
    "configs": ("config", "study"),
    "datasets": tuple(f"dataset {name}" for name in adapter_names()),
    "files": ("mat", "images", "weights", "score prw", "score cuhk-sysu"),
    "stores": ("zarr", "store url"),
    "models": ("index", "judgements", "model"),
}
"""Names of the targets by the module that has them."""
_LONGEST_LINE = 20_000


def targets(wanted: list[str]) -> list[Target]:
    """All targets, or those whose names begin with one of some words; only their rooms are imported."""
    rooms = ["careless"] if wanted == ["careless"] else ROOMS
    found: list[Target] = []
    for room in rooms:
        names = ROOMS.get(room, wanted)
        # A room may have several targets under one name: `dataset citypersons (json)`.
        if not wanted or any(
            name.startswith(word) or word.startswith(name) for name in names for word in wanted
        ):
            found += import_module(f"tests.fuzz.{room}").TARGETS
    return [target for target in found if not wanted or target.name.startswith(tuple(wanted))]


def corpus() -> dict[str, list[Finding]]:
    """The inputs that were found, by target."""
    found: dict[str, list[Finding]] = defaultdict(list)
    for line in CORPUS.read_text().splitlines() if CORPUS.exists() else ():
        finding = Finding.of_line(line)
        found[finding.target].append(finding)
    return found


def keep(findings: list[Finding]) -> None:
    """Append to the corpus what is short enough to be kept there."""
    with CORPUS.open("a") as file:
        for finding in findings:
            if len(finding.as_line()) <= _LONGEST_LINE:
                file.write(finding.as_line() + "\n")


def note(name: str, outcome: Outcome) -> None:
    """Add a campaign to the record."""
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    before = record.get(name, {"executions": 0, "seconds": 0, "findings": 0})
    record[name] = {
        "executions": before["executions"] + outcome.executions,
        "seconds": round(before["seconds"] + outcome.seconds),
        "findings": before["findings"] + len(outcome.findings),
        "next_seed": outcome.next_seed,
        "last": datetime.now(UTC).date().isoformat(),
    }
    RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")


def next_seed(name: str) -> int:
    """The seed that a target's next campaign begins with."""
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return int(record.get(name, {}).get("next_seed", 1))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="per target")
    parser.add_argument("--target", nargs="+", default=[], help="only those whose names begin so")
    parser.add_argument("--examples", type=int, help="so many per target, from seed 0; nothing is noted")
    parser.add_argument("--list", action="store_true", help="name the targets")
    arguments = parser.parse_args()
    chosen = targets(arguments.target)
    if arguments.list or not chosen:
        print("\n".join(target.name for target in targets([])))
        return 0 if arguments.list else 2
    known, failed = corpus(), False
    for target in chosen:
        again = retried(target, known[target.name]) if known[target.name] else []
        if arguments.examples is not None:
            outcome = fuzz(target, first_seed=0, examples=arguments.examples)
        else:
            outcome = fuzz(target, first_seed=next_seed(target.name), seconds=60 * arguments.minutes)
            note(target.name, outcome)
            keep(list(outcome.findings.values()))
        print(
            f"{target.name}: {len(known[target.name])} of the corpus, {outcome.executions} new ones in "
            f"{outcome.seconds:.0f} s, {len(again) + len(outcome.findings)} findings",
            flush=True,
        )
        for finding in [*again, *outcome.findings.values()]:
            failed = True
            print(f"  {finding.fault}\n    {finding.as_line()[:600]}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
