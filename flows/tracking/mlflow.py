"""MLflow, by the REST API of its server: needs no package of MLflow's."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from flows.tracking.protocol import Status, TrackedRun, TrackedStage

API = "api/2.0/mlflow"
ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"
MOST_PARAMS, MOST_METRICS = 100, 1000
"""Of a request, by MLflow's rules."""
LONGEST_VALUE = 500
"""Characters of a param, in every version of MLflow."""
SECONDS = 20.0
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_NAME = re.compile(r"[^\w\-. /]")
"""What no name may have in MLflow."""


class MlflowTracker:
    """A run of a server's experiment: params, metrics `STAGE/NAME`, curves by step, artifacts' keys as tags,
    and the report as an artifact.

    Parameters
    ----------
    uri
        The server, such as `http://localhost:5000`; by default $MLFLOW_TRACKING_URI.
    experiment
        Made if the server does not have it.

    Notes
    -----
    Credentials are read from the environment alone, as by MLflow's own client: MLFLOW_TRACKING_TOKEN, or
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """

    def __init__(self, uri: str | None = None, experiment: str = "personsearch") -> None:
        given = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if urlsplit(given).scheme not in ("http", "https"):
            raise ValueError(
                f"uri {given!r}: give the URL of an MLflow server, such as http://localhost:5000 (a folder "
                "or a database is served by `mlflow server --backend-store-uri ...`)"
            )
        self.uri = given.rstrip("/")
        self.experiment = experiment
        self.run_id = ""
        self._artifacts = ""

    def start(self, run: TrackedRun) -> None:
        """Begin a run of the experiment."""
        tags = {"mlflow.runName": f"{Path(run.config).stem} {run.name}", "personsearch.run": run.name}
        tags |= {"personsearch.config": run.config, "personsearch.store": run.store}
        begun = self._post(
            "runs/create",
            {
                "experiment_id": self._experiment_id(),
                "run_name": tags["mlflow.runName"],
                "start_time": _now(),
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
            },
        )
        info = begun["run"]["info"]
        self.run_id, self._artifacts = info["run_id"], info.get("artifact_uri") or ""
        params = [{"key": _name(key), "value": value[:LONGEST_VALUE]} for key, value in run.params.items()]
        for some in _batches(params, MOST_PARAMS):
            self._post("runs/log-batch", {"run_id": self.run_id, "params": some})

    def stage(self, stage: TrackedStage) -> None:
        """Log a stage's metrics and curves; its artifact's key is a tag."""
        now, name = _now(), _name(stage.name.replace(":", "/"))
        tag = {"key": f"artifact.{name.replace('/', '.')}", "value": stage.artifact}
        metrics = [
            {"key": f"{name}/{_name(key)}", "value": value, "timestamp": now, "step": 0}
            for key, value in stage.metrics.items()
        ]
        for curve in stage.curves():
            key = f"{name}/history/{_name(curve.name)}"
            metrics += (
                {"key": key, "value": value, "timestamp": now, "step": step}
                for step, value in zip(curve.steps, curve.values, strict=True)
            )
        self._post("runs/log-batch", {"run_id": self.run_id, "tags": [tag]})
        for some in _batches(metrics, MOST_METRICS):
            self._post("runs/log-batch", {"run_id": self.run_id, "metrics": some})

    def end(self, status: Status, report: Path | None) -> None:
        """Keep the report, and end the run, even if the server does not take the report."""
        try:
            if report is not None:
                self._keep(report)
        finally:
            self._post("runs/update", {"run_id": self.run_id, "status": _STATUS[status], "end_time": _now()})

    def _keep(self, report: Path) -> None:
        """Upload the report if files go through the server; otherwise tell where it lies."""
        proxied = urlsplit(self._artifacts)
        if proxied.scheme == "mlflow-artifacts":
            path = quote(f"{proxied.path.strip('/')}/report.html")
            self._request("PUT", f"{ARTIFACTS}/{path}", report.read_bytes(), "text/html")
        else:
            where = {"run_id": self.run_id, "key": "personsearch.report", "value": str(report)}
            self._post("runs/set-tag", where)

    def _experiment_id(self) -> str:
        """The experiment's id; it is made unless it is there, perhaps by another run at this moment."""
        try:
            return str(self._post("experiments/create", {"name": self.experiment})["experiment_id"])
        except ValueError:
            query = urlencode({"experiment_name": self.experiment})
            found = self._request("GET", f"{API}/experiments/get-by-name?{query}", None, "application/json")
            return str(json.loads(found)["experiment"]["experiment_id"])

    def _post(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._request("POST", f"{API}/{call}", json.dumps(body).encode(), "application/json")
        return dict(json.loads(answer or b"{}"))

    def _request(self, method: str, path: str, body: bytes | None, kind: str) -> bytes:
        """The server's answer. Raises ValueError, which says what the server said."""
        import http.client
        import urllib.error
        import urllib.request

        request = urllib.request.Request(f"{self.uri}/{path}", body, _headers(kind), method=method)
        host = urlsplit(self.uri).hostname
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            said = " ".join(error.read(2000).decode(errors="replace").split())[:200]
            raise ValueError(f"{host}: {path}: status {error.code}: {said}") from error
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"{host}: {getattr(error, 'reason', None) or error}") from error


def _headers(kind: str) -> dict[str, str]:
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    headers = {"Content-Type": kind}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    elif user:
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers


def _name(text: str) -> str:
    return _NAME.sub("_", text)


def _batches(entries: Sequence[dict[str, Any]], most: int) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(entries), most):
        yield entries[start : start + most]


def _now() -> int:
    return int(time.time() * 1000)
