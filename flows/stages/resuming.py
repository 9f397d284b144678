"""Where unfinished work would go on, by the names of the files in a work area; nothing is opened."""

from __future__ import annotations

import re
from pathlib import Path


def last_checkpoint(work: Path) -> str | None:
    """The step of the newest checkpoint of a training, such as 'step 120'."""
    steps = [int(match[1]) for path in work.rglob("*.pt") if (match := re.search(r"(\d+)$", path.stem))]
    return f"step {max(steps)}" if steps else None


def last_shard(work: Path) -> str | None:
    """How many shards of a feature store exist, such as '12 shards'."""
    shards = sum(path.name.isdigit() for path in (work / "features").rglob("*") if path.is_file())
    return f"{shards} shards" if shards else None


def last_block(work: Path) -> str | None:
    """How many blocks of images are done, such as '3 blocks of images'."""
    blocks = len(list(work.glob("blocks/*.done")))
    return f"{blocks} blocks of images" if blocks else None
