"""A training of several machines: how they meet at the first one, and how each learns that another is gone.

The first machine holds a server open (see `meeting`), on one address alone, that torchrun's rendezvous uses,
too. A machine that joins (see `joining`) compares its code with that of the first before anything starts,
takes a number, and from then on counts up once per second, which tells that it is there. The outcome, which
the first machine leaves at the end, tells it to go.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import torch.distributed as dist

from personsearch_core.errors import PersonSearchError
from personsearch_core.training.loop import TrainingStopped
from personsearch_core.training.meeting import ORDER, STOP, meeting_at
from personsearch_core.training.torchrun import endpoint

logger = logging.getLogger(__name__)

TRAINING, JOINED, BEGUN, OVER, OUTCOME, LEFT = "training", "joined", "begun", "over", "outcome", "left"
GATHER_SECONDS = 600.0
"""How long the first machine waits for the others."""
BEAT_SECONDS = 1.0
SILENT_SECONDS = 30.0
"""A machine that has not counted up for this long is lost."""
SETTLE_SECONDS = 10.0
"""The same, after a process has lost its connection to another one."""
LONGEST_POLL_SECONDS = 5.0
AGAIN = "run the same commands again to resume at the last checkpoint"
LEAVE_SECONDS = 10.0
"""How long the first machine waits at the end for the others to learn the outcome."""


@dataclass(frozen=True)
class Machines:
    """The machines of one training.

    count
        All of them, with this one.
    host, port
        Where the others reach this machine.
    code
        Version of the code; that of the others must be equal.
    """

    count: int
    host: str
    port: int
    code: str

    @property
    def address(self) -> str:
        return endpoint(self.host, self.port)


class FirstMachine:
    """The first machine's view of the others; see `first_machine`."""

    def __init__(self, machines: Machines, name: str, server: dist.TCPStore) -> None:
        self.machines = machines
        self.name = name
        self.meeting = meeting_at(machines.host, machines.port)
        self._server: dist.TCPStore | None = server
        self._others = range(1, machines.count)
        self._counts: dict[int, tuple[int, float]] = {}
        self._asked_at = time.monotonic()
        self._failed_at: float | None = None

    @property
    def place(self) -> dict[str, Any]:
        """What a `Post` says of where processes meet."""
        machines = self.machines
        return {"machines": machines.count, "host": machines.host, "port": machines.port}

    def gather(self, order: dict[str, Any], devices: int, should_stop: Callable[[], bool]) -> None:
        """Wait for the others, who find the order, and let them begin.

        Raises TrainingStopped, and PersonSearchError if they do not come.
        """
        machines, meeting = self.machines, self.meeting
        meeting.put(ORDER, order)
        meeting.put(
            TRAINING,
            {
                "name": self.name,
                "code": machines.code,
                "machines": machines.count,
                "devices": devices,
                "device": order["device"],
            },
        )
        logger.warning(
            "the detector waits for other machines (%d): run there: personsearch join %s",
            *(machines.count - 1, machines.address),
        )
        until = time.monotonic() + GATHER_SECONDS
        while not all(meeting.has(f"machine/{number}") for number in self._others):
            if should_stop() or meeting.has(STOP):
                raise TrainingStopped("stopped as requested while other machines were awaited")
            if time.monotonic() > until:
                here = sum(meeting.has(f"machine/{number}") for number in self._others)
                raise PersonSearchError(
                    f"{here} of {machines.count - 1} other machines came to {machines.address} within "
                    f"{GATHER_SECONDS / 60:.0f} minutes: run there: personsearch join {machines.address}"
                )
            if silent := self._silent(SILENT_SECONDS):
                raise PersonSearchError(self._lost(silent[0]))
            time.sleep(BEAT_SECONDS / 4)
        logger.info("training with %s", ", ".join(self._called(number) for number in self._others))
        meeting.put(BEGUN, True)

    def goes_on(self) -> bool:
        """Whether all machines are there and no process has failed, or only just, so that all others end."""
        if self._silent(SILENT_SECONDS):
            return False
        if self._failed_at is None and self.meeting.failures():
            self._failed_at = time.monotonic()
        return self._failed_at is None or time.monotonic() - self._failed_at < SETTLE_SECONDS

    def end(self, said: dict[str, Any], *, ended_by_itself: bool) -> dict[str, Any]:
        """Find out how the training ended, and tell the others.

        said: by rank 0, if it did. ended_by_itself: whether torchrun on this machine did.
        """
        outcome = self._outcome(said, ended_by_itself)
        self.dismiss(outcome)
        return outcome

    def _outcome(self, said: dict[str, Any], ended_by_itself: bool) -> dict[str, Any]:
        if said.get("kind") == "interrupted" and self.meeting.has(STOP):
            by = self.meeting.take(STOP)
            return {**said, "message": said["message"] + (f" (asked by {by})" if by else "")}
        if said:
            return said
        failures = self.meeting.failures()
        if failures and failures[0]["kind"] != "broke":
            return self._told(failures[0])
        lost = self._silent(SILENT_SECONDS) or self._wait_for_ends()
        if lost:
            return {"kind": "error", "message": self._lost(lost[0])}
        failures = self.meeting.failures()
        # Whose processes ended without a word was killed; that the others lost them follows from it.
        spoke = {failure["machine"] for failure in failures}
        ended = [number for number in self._others if self.meeting.take(f"ended/{number}") != 0]
        for number in [*([0] if ended_by_itself else []), *ended]:
            if number not in spoke:
                return {"kind": "error", "message": self._killed(number)}
        return self._told(failures[0]) if failures else {}

    def dismiss(self, outcome: dict[str, Any]) -> None:
        """Tell the others how it ended, and close the server once they know."""
        if self._server is None:
            return
        self.meeting.put(OUTCOME, outcome)
        until = time.monotonic() + LEAVE_SECONDS
        here = sum(self.meeting.has(f"machine/{number}") for number in self._others)
        while self.meeting.store.add(LEFT, 0) + len(self._silent(SETTLE_SECONDS)) < here:
            if time.monotonic() > until:
                break
            time.sleep(BEAT_SECONDS / 4)
        self._server = None

    def _silent(self, seconds: float) -> list[int]:
        """Machines that have come and have not counted up for so long."""
        now, silent = time.monotonic(), []
        pause, self._asked_at = now - self._asked_at, now
        if pause > LONGEST_POLL_SECONDS:
            # This machine was suspended: it has not heard what the others counted meanwhile.
            self._counts = {number: (count, at + pause) for number, (count, at) in self._counts.items()}
        for number in self._others:
            if not self.meeting.has(f"machine/{number}"):
                continue
            count = self.meeting.store.add(f"beat/{number}", 0)
            seen, at = self._counts.get(number, (-1, now))
            if count != seen:
                self._counts[number] = count, now
            elif now - at > seconds:
                silent.append(number)
        return silent

    def _wait_for_ends(self) -> list[int]:
        """Wait until torchrun has ended on all other machines; those that are silent meanwhile."""
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            running = [number for number in self._others if not self.meeting.has(f"ended/{number}")]
            silent = [number for number in self._silent(SETTLE_SECONDS) if number in running]
            if silent or not running:
                return silent
            if time.monotonic() > until:
                # Its processes may wait for one that is gone.
                self.meeting.put(OVER, True)
            time.sleep(BEAT_SECONDS / 4)

    def _called(self, number: int) -> str:
        name = socket.gethostname() if number == 0 else self.meeting.take(f"machine/{number}")
        return f"machine {number + 1} of {self.machines.count} ({name})"

    def _lost(self, number: int) -> str:
        name = self._called(number)
        return f"{name} is lost: `personsearch join` was killed there, or the network failed; {AGAIN}"

    def _killed(self, number: int) -> str:
        return f"a process on {self._called(number)} was killed or did not start: see the log there; {AGAIN}"

    def _told(self, failure: dict[str, Any]) -> dict[str, Any]:
        """A failure of another machine is told with its name."""
        if failure["machine"] == 0:
            return failure
        text = failure["message"] + (f": {failure['filename']}" if failure.get("filename") else "")
        kind = "error" if failure["kind"] == "system" else failure["kind"]
        return {**failure, "kind": kind, "message": f"{self._called(failure['machine'])}: {text}"}


@contextmanager
def first_machine(machines: Machines) -> Iterator[FirstMachine]:
    """The server that machines join, open during the block.

    It listens on the given address only. Raises PersonSearchError where that is impossible.
    """
    try:
        family, *_, address = socket.getaddrinfo(machines.host, machines.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family)
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]  # Python's own words say the address once more
        advice = ": it is not an address of this machine" if error.errno == errno.EADDRNOTAVAIL else ""
        raise PersonSearchError(
            f"run.rendezvous: cannot wait at {machines.address}: {why}{advice}"
        ) from error
    server = dist.TCPStore(
        machines.host,
        machines.port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    first = FirstMachine(machines, uuid4().hex, server)
    del server
    try:
        yield first
    except TrainingStopped as stopped:
        first.dismiss({"kind": "interrupted", "message": str(stopped)})
        raise
    except BaseException as error:
        first.dismiss({"kind": "error", "message": f"{error}"})
        raise
