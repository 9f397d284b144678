"""The metric log of a training: one row per step, without gaps or duplicates after any interruption.

Rows are appended to `history.jsonl`. A checkpoint holds the length of that file, and a resume truncates it to
that length, so the finished `history.parquet` is the same however often the run was killed. It therefore has
no wall times; to watch a run, use TensorBoard on `logs/`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE_NAME = "history.jsonl"


class MetricLog:
    """Appends rows of metrics; its state (the length of the file) belongs in the run's checkpoints."""

    def __init__(self, work_dir: Path, tensorboard_every: int = 10) -> None:
        work_dir.mkdir(parents=True, exist_ok=True)
        self._work_dir = work_dir
        self._tensorboard_every = tensorboard_every
        self._rows = (work_dir / FILE_NAME).open("ab")
        self._length = 0
        self._tensorboard: SummaryWriter | None = None

    def start(self, step: int) -> None:
        """Drop rows logged after the loaded state, and continue after `step` steps."""
        # Not at import: it takes 0.15 s, and what only computes features needs none of it.
        from torch.utils.tensorboard import SummaryWriter

        self._rows.truncate(self._length)
        self._rows.seek(self._length)
        self._tensorboard = SummaryWriter(str(self._work_dir / "logs"), purge_step=step)

    def append(self, step: int, metrics: Mapping[str, float], force_tensorboard: bool = False) -> None:
        """Log the metrics of the 0-based `step`; non-finite values are left out (null)."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._rows.write(json.dumps({"step": step, **finite}).encode() + b"\n")
        if self._tensorboard is not None and (force_tensorboard or step % self._tensorboard_every == 0):
            for name, value in finite.items():
                self._tensorboard.add_scalar(name, value, step)

    @staticmethod
    def covers(work_dir: Path, state: Mapping[str, Any]) -> bool:
        """Whether the log in `work_dir` still has all rows of a checkpoint's `state`."""
        rows = work_dir / FILE_NAME
        return rows.is_file() and rows.stat().st_size >= int(state["length"])

    def state_dict(self) -> dict[str, Any]:
        self._rows.flush()
        os.fsync(self._rows.fileno())
        return {"length": self._rows.tell()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._length = int(state["length"])

    def close(self) -> None:
        """Flush and close; the rows stay as `history.jsonl`."""
        self._rows.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def finish_history(work_dir: Path) -> dict[str, float]:
    """Write `history.parquet` from `history.jsonl`: step, then every metric, null where not logged.

    Returns each metric's value at the last step, without those not logged there.
    """
    source = work_dir / FILE_NAME
    with source.open() as lines:
        rows = [json.loads(line) for line in lines]
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    fields = [pa.field("step", pa.int64()), *(pa.field(name, pa.float64()) for name in names)]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    pq.write_table(table, work_dir / "history.parquet")
    last = {name: table[name][-1].as_py() for name in names}
    return {name: value for name, value in last.items() if value is not None}
