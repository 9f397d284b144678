"""A short kill campaign; tests/campaigns/kill_campaign.py is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.local import LocalStore
from tests.campaigns.kill_campaign import digests, run_campaign
from tests.end_to_end.conftest import TinyRun

pytestmark = pytest.mark.slow


def test_killed_it_ends_as_if_nothing_had_been(tiny_run: TinyRun, tmp_path: Path) -> None:
    alone = (tiny_run.folder, digests(LocalStore(tiny_run.store)))
    campaign = run_campaign(tmp_path, kills=1, seed=3, longest=6.0, alone=alone, workers=1)
    assert campaign.wrong == []
    assert campaign.total == 1 and campaign.runs >= 1
