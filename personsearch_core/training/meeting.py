"""What the processes of a training tell each other, through one of torch's stores.

On one machine the store is a file; over several it is a server that the first machine holds open. Values are
JSON: nothing that arrives here is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch.distributed as dist

ORDER = "order"
"""What to train, for every process."""
PART_BYTES = 4 << 20
"""Long values go in parts: torch's server refuses more than 8 MiB."""
STOP, FAILURE, FAILURES = "stop", "failure", "failures"


class Meeting:
    """A store, and what it is used for besides the process group.

    Methods raise RuntimeError (torch's DistError) if the store cannot be reached.
    """

    def __init__(self, store: dist.Store) -> None:
        self.store = store

    def put(self, name: str, value: Any) -> None:
        """Publish a JSON value of any size; whoever sees it sees all of it."""
        data = json.dumps(value)
        parts = range(0, len(data), PART_BYTES)
        for number, start in enumerate(parts):
            self.store.set(f"{name}/{number}", data[start : start + PART_BYTES])
        self.store.set(name, str(len(parts)))
        # An answer to this means that all of it has arrived.
        self.store.check([name])

    def has(self, name: str) -> bool:
        return bool(self.store.check([name]))

    def take(self, name: str) -> Any:
        """The value; waits for it as long as the store does."""
        count = int(self.store.get(name))
        return json.loads(b"".join(self.store.get(f"{name}/{number}") for number in range(count)))

    def ask_to_stop(self, by: str = "") -> None:
        """Ask all processes to stop at a checkpoint; `by` is a machine other than the first."""
        if not self.has(STOP):
            self.put(STOP, by)

    def leave_failure(self, failure: dict[str, Any]) -> None:
        """Failures are numbered as they come: those that follow from another one come after it."""
        self.put(f"{FAILURE}/{self.store.add(FAILURES, 1)}", failure)

    def failures(self) -> list[dict[str, Any]]:
        """All failures, the first one first."""
        names = [f"{FAILURE}/{number + 1}" for number in range(self.store.add(FAILURES, 0))]
        # A process that is killed may have taken a number and left nothing.
        return [self.take(name) for name in names if self.has(name)]


def meeting_in(file: Path) -> Meeting:
    """The meeting of processes of one machine."""
    return Meeting(dist.FileStore(str(file)))


def meeting_at(host: str, port: int) -> Meeting:
    """The meeting of processes of several machines. Raises RuntimeError if the server cannot be reached."""
    return Meeting(dist.TCPStore(host, port, is_master=False))
