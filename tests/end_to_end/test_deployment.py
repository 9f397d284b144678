"""Deployments on a real server with a real worker: by cron, by hand, cancelled, and with wrong parameters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli.status import describe
from storage.local import LocalStore
from tests.end_to_end.commands import begin, personsearch
from tests.end_to_end.server import Server, served_as_documented, wait_until
from tests.end_to_end.tiny import CHECKPOINTS, tiny_settings, write_tiny_config

pytestmark = pytest.mark.slow

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
MINUTES = 240.0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A config with data of its own."""
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copytree(tiny_data, folder, dirs_exist_ok=True)
    return write_tiny_config(folder, ".", run=tiny_settings(".", "store")["run"] | CHECKPOINTS)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, config: Path, prefect_database: Path
) -> Iterator[Server]:
    """Server, deployments and worker, set up and stopped by the commands of docs/operations.md."""
    with served_as_documented(tmp_path_factory.mktemp("server"), config, prefect_database) as server:
        # At once, so that the minute passes while the other tests run.
        server.documented('prefect --no-prompt deploy -n ingest --cron "*/15 * * * *"', {"*/15": "*"})
        yield server


def ended_run(server: Server, deployment: str, *, by_cron: bool = False) -> dict[str, Any]:
    """The first run of the deployment by its schedule, or by hand, once it has ended."""

    def ended() -> list[dict[str, Any]]:
        runs = [run for run in server.runs(deployment) if run["state_type"] in ENDED]
        return [run for run in runs if run["auto_scheduled"] == by_cron]

    wait_until(ended, MINUTES)
    return min(ended(), key=lambda run: str(run["created"]))


def test_an_unknown_parameter_is_refused_by_name(server: Server, config: Path) -> None:
    request = json.dumps({"config": str(config), "untill": "ingest"})
    words = ("deployment", "run", "person-search/nightly", "--param", f"request={request}")
    refused = server.try_prefect(*words)
    assert refused.returncode != 0 and "'untill' was unexpected" in refused.stdout + refused.stderr


def test_evaluation_alone_trains_nothing(server: Server, config: Path) -> None:
    server.documented("prefect deployment run person-search/nightly", {"nightly": "evaluation"})
    run = ended_run(server, "evaluation")
    assert run["state_type"] == "FAILED"
    assert "detector: not built in this store yet; this run builds only ingest" in run["state"]["message"]


def test_a_cancelled_run_stops_at_a_checkpoint_and_leaves_no_process(server: Server, config: Path) -> None:
    request = {"config": str(config), "until": "detector", "overrides": ["detector.training.steps=1000000"]}
    said = server.documented(
        "prefect deployment run person-search/nightly --param "
        """'request={"config": "other.yaml", "force": ["reid"]}'""",
        {"nightly": "reid", '{"config": "other.yaml", "force": ["reid"]}': json.dumps(request)},
    )
    assert "UUID" in said
    store = LocalStore(config.parent / "store")
    wait_until(lambda: any((store.root / ".work" / "detector").rglob("*.pt")), MINUTES)
    (run,) = server.runs("reid")
    assert run["id"] in server.documented("COLUMNS=200 prefect flow-run ls --state-type RUNNING")
    server.documented("prefect flow-run cancel ID", {"ID": run["id"]})
    wait_until(lambda: not describe(store, 0)["making"], MINUTES)
    assert ended_run(server, "reid")["state_type"] == "CANCELLED"
    assert [area["artifact"].partition("/")[0] for area in describe(store, 0)["unfinished"]] == ["detector"]


def test_by_cron_then_by_hand_nothing_new_is_made(server: Server, config: Path) -> None:
    first = ended_run(server, "ingest", by_cron=True)
    assert first["state_type"] == "COMPLETED"
    server.prefect("deployment", "schedule", "clear", "person-search/ingest", "--accept-yes")
    server.prefect("deployment", "run", "person-search/ingest")
    second = ended_run(server, "ingest")
    assert (second["state_type"], second["state"]["message"]) == ("COMPLETED", "0 stages built, 2 cached")


def test_a_deployment_without_a_config_or_with_a_wrong_one_is_refused(server: Server, tmp_path: Path) -> None:
    for given, message in (
        ("", "error: set PERSONSEARCH_CONFIG to the config"),
        (str(tmp_path / "absent.yaml"), "absent.yaml does not exist"),
    ):
        refused = server.try_prefect("deploy", "-n", "reid", PERSONSEARCH_CONFIG=given)
        assert refused.returncode != 0 and message in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_run_that_was_killed_is_marked_by_the_next_one(
    server: Server, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    slow = ["--set", "detector.training.steps=1000000", "--until", "detector"]
    run = begin("run", config, *slow, output=tmp_path / "printed", error=tmp_path / "printed")
    store = LocalStore(config.parent / "store")
    wait_until(lambda: makes_detector(store) and by_hand(server, "RUNNING"), MINUTES)
    (running,) = by_hand(server, "RUNNING")
    run.kill()
    run.wait()
    assert [each["id"] for each in by_hand(server, "RUNNING")] == [running["id"]], "no server sees it"
    again = ["--until", "ingest", "--force", "ingest:tracks"]
    done = personsearch("run", config, *again)
    assert done.status == 0, done.stderr
    # A scheduled run may have come first, and be at it.
    wait_until(lambda: by_hand(server, "CRASHED"), MINUTES)
    assert [flow_run["id"] for flow_run in by_hand(server, "CRASHED")] == [running["id"]], done.stderr


def makes_detector(store: LocalStore) -> bool:
    """Whether a detector is being trained; the scheduled runs of this module only ingest."""
    return any(area["artifact"].startswith("detector/") for area in describe(store, 0)["making"])


def by_hand(server: Server, state: str) -> list[dict[str, Any]]:
    """The flow runs in a state that no deployment started."""
    found = server.ask("/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}})
    return [flow_run for flow_run in found if flow_run["deployment_id"] is None]
