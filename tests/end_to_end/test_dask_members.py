"""A sweep on a Dask cluster: members are tasks of its workers, and one that fails is a hole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from distributed import LocalCluster

from tests.end_to_end.conftest import TinyRun
from tests.in_process import InProcess


def test_members_are_tasks_and_one_that_fails_is_a_hole(
    tiny_run: TinyRun, tmp_path: Path, in_process: InProcess
) -> None:
    store = shutil.copytree(tiny_run.store, tmp_path / "store")
    words = f"sweep {tiny_run.config} --store {store} --out {tmp_path / 'tables'} --set reid.lr=2e-3,1e30"
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        swept = in_process(f"{words} --on {cluster.scheduler_address}")
    assert swept.status == 2, swept.error
    assert "2 members; workers: 1" in swept.error
    body = json.loads((tmp_path / "tables" / "study.json").read_text())
    whole, hole = body["members"]
    assert whole["error"] is None and "evaluation" in whole["artifacts"]
    assert hole["error"].startswith("reid: ") and "finite" in hole["error"], hole
    assert body["made"] == {"reid": 1, "gallery": 1, "evaluation": 1}

    absent = in_process(f"{words} --on tcp://127.0.0.1:9")
    assert absent.status == 2 and "--on: no scheduler answers at tcp://127.0.0.1:9" in absent.error
