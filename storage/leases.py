"""Leases on object storage: who builds a key now, so that other machines wait for it.

<url>/.leases/<kind>/<key>/<number>     who holds it; written again every BEAT_SECONDS

A lease is taken by a conditional put, which one of several machines wins. A holder that dies stops writing;
whoever has watched the object for EXPIRY_SECONDS without a change puts the next number, again conditionally.
No clock is compared with another machine's. A lease only saves double work: if two machines ever build the
same key, because one was cut off for longer than that, the first manifest wins.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storage.bucket import Bucket
from storage.errors import StorageError
from storage.object_storage import reaching

log = logging.getLogger(__name__)

FOLDER = ".leases"
BEAT_SECONDS = 15.0
EXPIRY_SECONDS = 75.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class _Lease:
    """One number of a key's leases, as an object says it."""

    number: int
    raw: bytes

    def is_of(self, place: str) -> bool:
        """Whether a process with the same local folder holds it, or held it until it died."""
        return self._said("place") == place

    @property
    def holder(self) -> str:
        return f"process {self._said('pid')} of {self._said('host')}"

    def _said(self, name: str) -> str:
        try:
            return str(json.loads(self.raw)[name])
        except (ValueError, KeyError, TypeError):
            return "?"


class Leases:
    """The leases of one store, as the machine with the local folder `root` takes them."""

    def __init__(self, bucket: Bucket, root: Path) -> None:
        self._bucket = bucket
        self._host = socket.gethostname()
        self._place = f"{self._host}:{root.absolute()}"

    @contextmanager
    def held(self, kind: str, key: str, is_built: Callable[[], bool]) -> Iterator[None]:
        """Hold the lease of a key; waits while another machine does, and takes none if that one `is_built`.

        Otherwise all that have waited would take the lease, one after the other, to find the same artifact.
        The caller holds the key's local lock, so a lease of this machine is that of a process that died.
        """
        folder = f"{self._bucket.prefix}/{FOLDER}/{kind}/{key}"
        token = secrets.token_hex(8)
        number = self._take(folder, token, f"{kind}/{key}", is_built)
        if number is None:
            yield
            return
        ended = threading.Event()
        beating = threading.Thread(
            target=self._beat, args=(f"{folder}/{number}", token, ended), daemon=True, name="lease"
        )
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()  # a beat after the release would bring the lease back
            self._release(folder, number)

    def _take(self, folder: str, token: str, what: str, is_built: Callable[[], bool]) -> int | None:
        """The number of the lease that this machine now holds; None if what it waited for is built."""
        pause, seen, since, told = _FIRST_PAUSE_SECONDS, None, time.monotonic(), False
        while True:
            lease = self._newest(folder)
            if lease != seen:
                if told and is_built():
                    return None
                seen, since = lease, time.monotonic()
            expired = time.monotonic() - since > EXPIRY_SECONDS
            if lease is None or expired or lease.is_of(self._place):
                number = 0 if lease is None else lease.number + 1
                if lease is not None:
                    log.warning("taking over the lease of %s, which %s no longer holds", what, lease.holder)
                if self._put(f"{folder}/{number}", token):
                    return number
                continue
            if not told:
                log.warning("waiting for %s, which is building %s", lease.holder, what)
                told = True
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE_SECONDS)

    @reaching()
    def _newest(self, folder: str) -> _Lease | None:
        """The lease with the highest number, unless it has just been released."""
        for number in reversed(self._numbers(folder)):
            raw = self._bucket.read(f"{folder}/{number}")
            if raw is not None:
                return _Lease(number, raw)
        return None

    def _numbers(self, folder: str) -> list[int]:
        names = (path.rpartition("/")[2] for path in self._bucket.system.find(folder))
        return sorted(int(name) for name in names if name.isdecimal())

    def _put(self, path: str, token: str) -> bool:
        """Whether this was the first put of the number; False when another machine was faster."""
        try:
            with reaching():
                self._bucket.system.pipe_file(path, self._content(token, 0), mode="create")
        except FileExistsError:
            # The answer to an earlier try of the client may have been lost.
            return token.encode() in (self._bucket.read(path) or b"")
        return True

    def _beat(self, path: str, token: str, ended: threading.Event) -> None:
        beat = 0
        while not ended.wait(BEAT_SECONDS):
            beat += 1
            try:
                with reaching():
                    self._bucket.system.pipe_file(path, self._content(token, beat))
            except (OSError, StorageError) as error:
                log.warning("the lease %s was not renewed: %s", path, error)

    def _release(self, folder: str, number: int) -> None:
        """Remove the lease after those that it has followed; what stays behind expires."""
        try:
            with reaching():
                for each in self._numbers(folder):
                    if each <= number:
                        self._bucket.system.rm_file(f"{folder}/{each}")
        except FileNotFoundError:
            log.info("the lease %s was released already", folder)
        except (OSError, StorageError) as error:
            log.warning("the lease %s was not released, and expires: %s", folder, error)

    def _content(self, token: str, beat: int) -> bytes:
        body = {
            "host": self._host,
            "pid": os.getpid(),
            "place": self._place,
            "token": token,
            "beat": beat,
        }
        return json.dumps(body).encode()
