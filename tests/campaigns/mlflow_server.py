"""A run told to a real MLflow server, and read back through its API: params, curves, keys, the report.

python -m tests.campaigns.mlflow_server WORK --mlflow COMMAND

COMMAND is the `mlflow` of an environment of its own: MLflow's pins and this project's exclude each other.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.end_to_end.commands import personsearch
from tests.end_to_end.tiny import draw_tiny_data, write_tiny_config

PATIENCE = 120.0
"""Seconds for the server to start."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--mlflow", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = [str(given.mlflow), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{given.work.absolute()}/mlflow.db"]
    words += ["--artifacts-destination", str(given.work.absolute() / "artifacts")]
    with (given.work / "server.log").open("w") as log:
        server = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(url)
        draw_tiny_data(given.work)
        trackers = {"name": "mlflow", "options": {"uri": url, "experiment": "campaign"}}
        run = {"device": "cpu", "threads": 1, "trackers": [trackers]}
        config = write_tiny_config(given.work, ".", run=run)
        outcome = personsearch("run", config, json_to=given.work / "outcome.json")
        assert outcome.status == 0, outcome.stderr
        print(json.dumps(_seen(url), indent=1))
    finally:
        server.terminate()
        server.wait()


def _seen(url: str) -> dict[str, Any]:
    """What the server shows of the one run."""
    found = _post(url, "experiments/search", {"filter": "name = 'campaign'", "max_results": 1})
    experiment = found["experiments"][0]["experiment_id"]
    (run,) = _post(url, "runs/search", {"experiment_ids": [experiment]})["runs"]
    run_id, data = run["info"]["run_id"], run["data"]
    tags = {tag["key"]: tag["value"] for tag in data["tags"]}
    curve = "reid/history/loss"
    points = _get(url, f"mlflow/metrics/get-history?run_id={run_id}&metric_key={curve}")["metrics"]
    files = _get(url, f"mlflow/artifacts/list?run_id={run_id}")["files"]
    return {
        "status": run["info"]["status"],
        "params": len(data["params"]),
        "metrics": len(data["metrics"]),
        "mAP": next(each["value"] for each in data["metrics"] if each["key"] == "evaluation/mAP"),
        curve: [point["step"] for point in points],
        "artifacts": {name: value for name, value in tags.items() if name.startswith("artifact.")},
        "files": {each["path"]: each.get("file_size") for each in files},
    }


def _wait(url: str) -> None:
    begun = time.monotonic()
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() - begun > PATIENCE:
                raise
            time.sleep(0.5)


def _post(url: str, call: str, body: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps(body).encode()
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/{call}", content, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return dict(json.load(answer))


def _get(url: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/api/2.0/{path}") as answer:
        return dict(json.load(answer))


if __name__ == "__main__":
    main()
