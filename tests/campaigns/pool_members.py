"""Many members on a work pool: a Prefect server, workers of their own caches, and an S3 store of moto's.

Members are re-ID heads of a few steps on shared features. Some of their processes are killed; the sweep is
then run again, which builds only what is missing. Fails if an artifact was built twice although nothing was
killed while building it, or if the second sweep leaves a hole.

    python -m tests.campaigns.pool_members WORK [--members 200] [--workers 4] [--kills 3] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import psutil
from moto.server import ThreadedMotoServer

from storage.opening import open_store
from tests.end_to_end.commands import personsearch
from tests.end_to_end.server import bare_server, built_by, workers
from tests.end_to_end.tiny import draw_tiny_data, write_tiny_config

POOL = "campaign"
URL = "s3://artifacts/campaign"
SHARED = ("ingest", "detector", "features", "detections")


def measure(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Wall seconds of both sweeps, how often artifacts were built, and what the kills left."""
    draw_tiny_data(work / "data")
    config = write_tiny_config(work, work / "data", gallery={"untrained": False})
    with bare_server(work) as server:
        own = os.environ | server.environment | {"PERSONSEARCH_CACHE": str(work / "own")}
        sweep = ("sweep", config, "--store", URL, "--on", POOL, "--out", work / "tables")
        words = (*sweep, "--set", f"reid.seed=0..{options.members - 1}")
        with workers(server, POOL, work, options.workers) as running:
            ended = threading.Event()
            killer = _Killer([each.pid for each in running], options.kills, ended)
            killer.start()
            started = time.perf_counter()
            first = personsearch(*words, environment=own, timeout=options.hours * 3600)
            seconds = time.perf_counter() - started
            ended.set()
            killer.join()
            holes = [each for each in _members(work) if each["error"]]
            started = time.perf_counter()
            second = personsearch(*words, environment=own, timeout=options.hours * 3600)
            again = time.perf_counter() - started
    built = built_by(work)
    kinds: dict[str, int] = {}
    for name in built:
        kinds[name.partition("/")[0]] = kinds.get(name.partition("/")[0], 0) + 1
    twice = {name: count for name, count in built.items() if count > 1}
    left = [each for each in _members(work) if each["error"]]
    print(first.stderr[-2000:], second.stderr[-2000:], file=sys.stderr)
    if left or len(twice) > killer.killed or any(kinds[kind] > 2 for kind in SHARED):
        raise AssertionError(f"holes: {left}; built twice: {twice}")
    return {
        "members": options.members,
        "workers": options.workers,
        "seconds": seconds,
        "killed": killer.killed,
        "holes": [f"{each['name']}: {each['error']}" for each in holes],
        "seconds_again": again,
        "artifacts_by_kind": kinds,
        "built_twice": twice,
        "artifacts": len(list(open_store(URL).keys())),
    }


def _members(work: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((work / "tables" / "study.json").read_text())["members"]
    return found


class _Killer(threading.Thread):
    """Kills processes of members at random, about one per minute."""

    def __init__(self, parents: list[int], kills: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._parents, self._kills, self._ended = parents, kills, ended
        self.killed = 0

    def run(self) -> None:
        while self.killed < self._kills and not self._ended.wait(random.uniform(30, 90)):
            members = [child for pid in self._parents for child in psutil.Process(pid).children()]
            if members:
                random.choice(members).kill()
                self.killed += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="a new folder")
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--hours", type=float, default=6.0, help="after which a sweep has failed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client("s3").create_bucket(Bucket="artifacts")
    try:
        found = measure(options.work.absolute(), options)
    finally:
        server.stop()
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
