"""A machine that joins a training which another one has begun; see `machines`."""

from __future__ import annotations

import collections
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch.distributed as dist

from personsearch_core.errors import PersonSearchError
from personsearch_core.training.loop import TrainingStopped
from personsearch_core.training.machines import (
    BEAT_SECONDS,
    BEGUN,
    JOINED,
    LEFT,
    OUTCOME,
    OVER,
    SILENT_SECONDS,
    TRAINING,
)
from personsearch_core.training.meeting import Meeting, meeting_at
from personsearch_core.training.torchrun import Post, endpoint, torchrun

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 1.0


def join_training(
    share: str,
    host: str,
    port: int,
    *,
    code: str,
    wait_seconds: float,
    prepare: Callable[[str, int], int],
    should_stop: Callable[[], bool],
    tell: Callable[[str], None] = logger.info,
) -> None:
    """Take part in the training whose first machine waits at the address; returns when it has ended well.

    Parameters
    ----------
    share
        As that of `train_together`.
    code
        Version of the code.
    wait_seconds
        How long to wait for the training to begin.
    prepare
        Called with the type of device and the number of processes; returns the number of the first GPU, or
        raises if this machine cannot do it.
    should_stop
        Asked twice a second; has all machines stop at a checkpoint.
    tell
        Takes a line on what is waited for or done.

    Raises
    ------
    TrainingStopped
        If the training was stopped.
    PersonSearchError
        If it failed, or the first machine refuses this one.
    ConnectionError, TimeoutError
        If the first machine is gone, or no training begins in time.
    """
    place = endpoint(host, port)
    tell(f"waiting for a training at {place}, for {wait_seconds / 60:.0f} minutes at most")
    meeting, training = _find_training(host, port, wait_seconds, should_stop)
    if training["code"] != code:
        raise PersonSearchError(
            f"the machine at {place} trains with {training['code']}, this one has {code}: install the same "
            "version"
        )
    first_device = prepare(training["device"], training["devices"])
    number = _within(SILENT_SECONDS, place, lambda: meeting.store.add(JOINED, 1))
    if number >= training["machines"]:
        raise PersonSearchError(
            f"the training at {place} has all its {training['machines']} machines already"
        )
    link = _Link(meeting, place, number, should_stop)
    link.call(lambda: meeting.put(f"machine/{number}", socket.gethostname()))
    tell(f"joined the training at {place}; waiting until all of its machines are there")
    while not (begun := link.call(lambda: meeting.has(BEGUN))) and link.goes_on():
        time.sleep(BEAT_SECONDS / 4)
    if begun:
        tell(f"training; processes on this machine: {training['devices']}")
        with TemporaryDirectory(prefix="personsearch-join-") as folder:
            post = Post(
                share,
                training["name"],
                folder,
                training["devices"],
                first_device,
                number,
                training["machines"],
                host=host,
                port=port,
            )
            with torchrun(post) as running:
                # Rank 0, which has something to say, is not here.
                collections.deque(running.messages(link.goes_on), maxlen=0)
            status = 0 if running.was_ended else running.returncode
            link.call(lambda: meeting.put(f"ended/{number}", status))
    _raise_unless_good(link.wait_for_outcome())


class _Link:
    """What a machine that has joined hears from the first one."""

    def __init__(self, meeting: Meeting, place: str, number: int, should_stop: Callable[[], bool]) -> None:
        self._meeting = meeting
        self._place = place
        self._number = number
        self._should_stop = should_stop
        self._counted_at = 0.0
        self._over = False

    def call(self, call: Callable[[], T]) -> T:
        return _within(SILENT_SECONDS, self._place, call)

    def goes_on(self) -> bool:
        """Count up, once per second; False once the training is over. Raises ConnectionError."""
        if self._should_stop():
            self.call(lambda: self._meeting.ask_to_stop(socket.gethostname()))
        if time.monotonic() - self._counted_at >= BEAT_SECONDS:
            self.call(lambda: self._meeting.store.add(f"beat/{self._number}", 1))
            self._over = self.call(lambda: self._meeting.has(OVER) or self._meeting.has(OUTCOME))
            self._counted_at = time.monotonic()
        return not self._over

    def wait_for_outcome(self) -> dict[str, Any]:
        """What the first machine says of the training's end. Raises ConnectionError."""
        while not self.call(lambda: self._meeting.has(OUTCOME)):
            self.goes_on()
            time.sleep(BEAT_SECONDS / 4)
        outcome: dict[str, Any] = self.call(lambda: self._meeting.take(OUTCOME))
        self.call(lambda: self._meeting.store.add(LEFT, 1))
        return outcome


def _find_training(
    host: str, port: int, wait_seconds: float, should_stop: Callable[[], bool]
) -> tuple[Meeting, dict[str, Any]]:
    """The training that is waited for at an address. Raises TimeoutError if none begins in time."""
    place = endpoint(host, port)
    until = time.monotonic() + wait_seconds
    while True:
        try:
            # The store's own attempts to connect are long and noisy.
            socket.create_connection((host, port), timeout=5).close()
            found = _within(SILENT_SECONDS, place, lambda: _open_training(host, port))
            if found is not None:
                return found
        except socket.gaierror:
            raise
        except OSError as error:
            logger.debug("%s: %s", place, error)
        if should_stop():
            raise TrainingStopped("stopped before a training began")
        if time.monotonic() > until:
            raise TimeoutError(
                f"no training began at {place} within {wait_seconds / 60:.0f} minutes: is that the "
                "run.rendezvous of a run with run.nodes, and can this machine reach it?"
            )
        time.sleep(RETRY_SECONDS)


def _open_training(host: str, port: int) -> tuple[Meeting, dict[str, Any]] | None:
    """What waits at an address; None if it has ended and is about to close its server."""
    meeting = meeting_at(host, port)
    training: dict[str, Any] = meeting.take(TRAINING)
    return None if meeting.has(OUTCOME) else (meeting, training)


def _within(seconds: float, place: str, call: Callable[[], T]) -> T:
    """The call's result. On a thread: a machine that is gone may block it beyond any timeout of the store.

    Raises ConnectionError if the store does not answer in time or cannot be reached.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except (TimeoutError, dist.DistError) as error:
        raise ConnectionError(
            f"the first machine of the training does not answer at {place}: it was killed, or cannot be "
            "reached"
        ) from error


def _raise_unless_good(outcome: dict[str, Any]) -> None:
    kind, message = outcome.get("kind"), outcome.get("message", "")
    if kind == "interrupted":
        raise TrainingStopped(message)
    if kind != "result":
        raise PersonSearchError(f"the training failed: {message or 'see the log of its first machine'}")
