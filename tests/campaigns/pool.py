"""Many members on a work pool: a Prefect server, workers that share an S3 store of moto's alone, and a study.

Members are re-ID branches of a few steps, which share snapshots, a detector and its features. Prints how
often each artifact was built, by the logs of the processes that built it, and fails if one was built twice or
if a member failed. After `--minutes` the study is interrupted, and what is there is counted.

    python -m tests.campaigns.pool WORK [--members 200] [--workers 4] [--minutes 60] [--json OUT]

On SQLite, workers lock each other out; PREFECT_SERVER_DATABASE_CONNECTION_URL may name an empty PostgreSQL
database.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import yaml
from moto.server import ThreadedMotoServer

from storage.opening import open_store
from tests.end_to_end.commands import PROJECT, command
from tests.end_to_end.server import bare_server, built_by, workers
from tests.end_to_end.tiny import draw_tiny_data, write_tiny_config

POOL = "campaign"
URL = "s3://artifacts/campaign"


def measure(work: Path, members: int, count: int, minutes: float) -> dict[str, Any]:
    """Seconds of the study, its members that are whole, and how often each artifact was built."""
    draw_tiny_data(work / "data")
    write_tiny_config(work, work / "data")
    study = write_study(work, members)
    with bare_server(work) as server:
        server.prefect("work-pool", "create", POOL, "--type", "process")
        words = command("study", "run", study, "--store", URL, "--on", POOL, "--json", work / "result.json")
        environment = server.environment | {"PERSONSEARCH_CACHE": str(work / "own")}
        with workers(server, POOL, work, count), (work / "study.log").open("wb") as log:
            started = time.monotonic()
            running = subprocess.Popen(words, env=environment, cwd=PROJECT, stdout=log, stderr=log)
            try:
                running.wait(60 * minutes)
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGINT)
                running.wait()
            seconds = time.monotonic() - started
    built = built_by(work)
    ended = json.loads((work / "result.json").read_text())["members"]
    return {
        "members": members,
        "workers": count,
        "whole": sum(each["error"] is None for each in ended),
        "failed": [each["error"] for each in ended if each["error"] and "was stopped" not in each["error"]],
        "seconds": seconds,
        "in_the_store": Counter(kind for kind, _ in list(open_store(URL).keys())),
        "built": Counter(name.partition("/")[0] for name in built.elements()),
        "built_twice": {name: times for name, times in built.items() if times > 1},
    }


def write_study(folder: Path, members: int) -> Path:
    """A study whose members differ in the seed of the branch, and stop behind it."""
    column = {"title": "loss", "stage": "reid", "metric": "loss", "unit": "number"}
    table = {
        "title": "Last loss",
        "columns": {"loss": column},
        "rows": {f"r{seed}": {"member": f"seed {seed}"} for seed in range(members)},
    }
    group = {"grid": {"reid.seed": list(range(members))}, "until": "reid"}
    said = {
        "title": "Many",
        "config": "tiny.yaml",
        "set": {"reid.phases": [{"epochs": 1, "objectives": [{"kind": "batch_hard_triplet"}]}]},
        "members": {"seed": group},
        "tables": {"losses": table},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(said))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="a new folder")
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=60.0)
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
        found = measure(options.work.absolute(), options.members, options.workers, options.minutes)
    finally:
        server.stop()
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    if found["built_twice"] or found["failed"]:
        raise SystemExit("an artifact was built twice, or a member failed")


if __name__ == "__main__":
    main()
