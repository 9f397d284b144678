"""Plans and sweeps look up keys, and never list a store, however many artifacts it holds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from storage.local import LocalStore
from tests.end_to_end.conftest import TinyRun
from tests.in_process import InProcess, in_process

__all__ = ["in_process"]

pytestmark = pytest.mark.slow


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The listings of this process, as they come."""
    found: list[str] = []

    def noting(name: str) -> None:
        original = getattr(LocalStore, name)

        def method(self: LocalStore, *arguments: Any) -> Any:
            found.append(f"{name} {arguments}")
            return original(self, *arguments)

        monkeypatch.setattr(LocalStore, name, method)

    for name in ("keys", "stamps", "kinds", "without_manifest"):
        noting(name)
    return found


@pytest.fixture
def store(tiny_run: TinyRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.store, tmp_path / "store"))


def test_plan_study_plan_and_sweep_list_nothing(
    tiny_run: TinyRun, store: Path, listed: list[str], in_process: InProcess
) -> None:
    at = f"{tiny_run.config} --store {store}"
    plan = in_process(f"plan {at} --set reid.lr=2e-3 --set detector.training.lr=4e-3")
    assert plan.status == 0, plan.error
    assert re.search(r"new: \S*lr 0.005 -> 0.004", plan.output), plan.output
    study = store.with_name("study.yaml")
    study.write_text(
        f"title: Two seeds\nconfig: {tiny_run.config}\nmembers: {{seeds: {{grid: {{reid.seed: [0, 1]}}}}}}\n"
        "tables: {t: {title: t, columns: {mAP: {title: mAP, metric: mAP}}, rows: {r: {member: seeds 1}}}}\n"
    )
    planned = in_process(f"study plan {study} --store {store}")
    assert planned.status == 0, planned.error
    assert "of this store" in planned.output, "the estimate is from the store's own artifacts"
    swept = in_process(f"sweep {at} --set reid.seed=0 --parallel 1")
    assert swept.status == 0 and "built nothing" in swept.output, swept.error
    assert not listed
    assert in_process(f"store ls --store {store}").status == 0 and listed, "what lists is noticed"
