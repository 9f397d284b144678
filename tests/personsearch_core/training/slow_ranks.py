"""What the processes of a training call in tests: steps that leave time for what happens between them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from personsearch_core.training.distributed import train_rank
from personsearch_core.training.ranks import Rank

STEP_SECONDS = 0.25
"""Steps take this long at least, so that what happens meanwhile happens in the middle of a training."""


def train_rank_slowly(job: dict[str, Any], rank: Rank) -> dict[str, Any]:
    def should_stop() -> bool:
        time.sleep(STEP_SECONDS)
        return rank.should_stop()

    return train_rank(job, replace(rank, should_stop=should_stop))


SHARE = f"{__name__}:{train_rank_slowly.__name__}"
