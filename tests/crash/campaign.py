"""All crash points on two cores (`make crash`), or all power cuts (`make power-cuts`).

    python -m tests.crash.campaign [--power] [--operations NAME ...] [--json OUT]

Prints a line per operation; the exit status is 1 if there are faults.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.crash import shim

PROJECT = Path(__file__).resolve().parents[2]
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others keep a thread of their own
}

Reports = dict[str, dict[str, Any]]
_COUNTS = ("points", "states", "layouts")


def run(options: Sequence[str], *, shares: int = 1) -> Reports:
    """The harness's reports by operation, from `shares` processes at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, **_ONE_THREAD, "LD_PRELOAD": str(shim.build(folder))}
        command = [sys.executable, "-m", "tests.crash.harness", *options]
        running = [
            subprocess.Popen(
                [*command, "--share", f"{share}/{shares}", "--json", str(folder / f"{share}.json")],
                env=environment,
                cwd=PROJECT,
            )
            for share in range(shares)
        ]
        failed = [process.wait() for process in running]
        if any(failed):
            raise SystemExit(f"the harness failed with status {max(failed)}")
        return merged([json.loads((folder / f"{share}.json").read_bytes()) for share in range(shares)])


def merged(parts: Sequence[Reports]) -> Reports:
    """One report per operation; points, layouts, outcomes and faults are added up."""
    whole: Reports = {}
    for part in parts:
        for name, report in part.items():
            before = whole.setdefault(
                name, {"calls": 0, **dict.fromkeys(_COUNTS, 0), "outcomes": {}, "faults": []}
            )
            before["calls"] = report["calls"]
            for each in _COUNTS:
                before[each] += report[each]
            before["outcomes"] = dict(Counter(before["outcomes"]) + Counter(report["outcomes"]))
            before["faults"] += report["faults"]
    return whole


def _cpu_seconds() -> float:
    """What the finished processes of this one have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--power", action="store_true", help="Cut the power instead.")
    parser.add_argument("--operations", nargs="*", help="Only these local operations.")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    options = ["--power"] if asked.power else [] if asked.operations else ["--requests"]
    options += ["--progress", *(["--operations", *asked.operations] if asked.operations else [])]
    started = time.monotonic()
    reports = run(options, shares=3)
    for name, report in reports.items():
        tried = f"{report['points']} points that left {report['states']} states"
        tried = f"{report['layouts']} layouts" if asked.power else tried
        outcomes = ", ".join(f"{count} {what}" for what, count in sorted(report["outcomes"].items()))
        print(f"{name}: {report['calls']} calls, {tried}, {len(report['faults'])} faults ({outcomes})")
        for fault in report["faults"]:
            print(f"  {fault}")
    totals = {what: sum(report[what] for report in reports.values()) for what in ("calls", *_COUNTS)}
    faults = sum(len(report["faults"]) for report in reports.values())
    print(
        f"{len(reports)} operations: {', '.join(f'{count} {what}' for what, count in totals.items())}, "
        f"{faults} faults in {time.monotonic() - started:.0f} s, {_cpu_seconds():.0f} s of CPU"
    )
    if asked.json:
        asked.json.write_text(json.dumps(reports, indent=1) + "\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
