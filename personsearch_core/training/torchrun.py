"""torchrun on one machine of a training: how it is started, followed over a pipe, and ended.

Every rank watches standard input, a pipe held open by the launching process: when it closes, the launcher is
gone, and the rank exits. Processes of one machine cannot be reached from another: they find each other
through files instead of a server, and communicate over the loopback interface. Those of several machines use
the interface that leads to the first one.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from personsearch_core.training.meeting import Meeting, meeting_at, meeting_in

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
END_SECONDS = 10.0
"""How long torchrun may take to end when it has been told to."""
NO_SERVER = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Else torchrun opens a port of its own, on all interfaces."""


@dataclass(frozen=True)
class Post:
    """What torchrun and its processes are told on one machine; nothing of it comes from another machine.

    share
        `module:function` that each process calls with the job and its `Rank`; returns its result as JSON.
    name
        Of this launch: processes left by a killed launcher must not meet those of the next.
    folder
        Where the processes of a single machine meet.
    host, port
        Where those of several machines meet.
    """

    share: str
    name: str
    work_dir: str
    devices: int
    first_device: int = 0
    machine: int = 0
    machines: int = 1
    folder: str = ""
    host: str = ""
    port: int = 0

    def meeting(self) -> Meeting:
        if self.folder:
            return meeting_in(Path(self.folder) / self.name)
        return meeting_at(self.host, self.port)

    def command(self) -> list[str]:
        if self.folder:
            where = ("--rdzv-conf=store_type=file", f"--rdzv-endpoint={self.folder}/launchers-{self.name}")
        else:
            address = endpoint(self.host, self.port)
            where = ("--rdzv-conf=is_host=false", f"--rdzv-endpoint={address}")
        return [
            *(sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", *where),
            *(f"--rdzv-id={self.name}", f"--nnodes={self.machines}", f"--nproc-per-node={self.devices}"),
            # Not an address: it spares looking up this machine's, and sorts torchrun's ranks as ours.
            *(f"--local-addr=machine-{self.machine:04}", "-m", "personsearch_core.training.ranks"),
            json.dumps(asdict(self)),
        ]

    def environment(self) -> dict[str, str]:
        if self.folder:
            interfaces = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
            return {**os.environ, **interfaces, **NO_SERVER}
        found = _interface_to(self.host, self.port)
        interfaces = {"GLOO_SOCKET_IFNAME": found, "NCCL_SOCKET_IFNAME": f"={found}"} if found else {}
        return {**interfaces, **os.environ, **NO_SERVER}


def endpoint(host: str, port: int) -> str:
    """An address as people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Torchrun:
    """A running torchrun; see `torchrun`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.was_ended = False
        """Whether it was told to end."""

    @property
    def returncode(self) -> int:
        """Of a torchrun that has ended."""
        return self.process.wait()

    def messages(self, goes_on: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Rank 0's messages until torchrun ends; `goes_on` is asked twice a second, and False ends it."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        unfinished = b""
        end_by = float("inf")
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                if not self.was_ended and not goes_on():
                    self.end()
                    end_by = time.monotonic() + END_SECONDS
                if time.monotonic() > end_by:
                    self.process.kill()
                    return
                if not selector.select(timeout=POLL_SECONDS):
                    continue
                received = os.read(descriptor, 65536)
                if not received:
                    return
                *lines, unfinished = (unfinished + received).split(b"\n")
                for line in lines:
                    if line.startswith(b'{"kind"'):
                        yield json.loads(line)
                    elif line:
                        logger.info("%s", line.decode(errors="replace"))

    def end(self) -> None:
        """End the ranks, which watch the pipe, and torchrun, which may wait for other machines."""
        assert self.process.stdin is not None
        self.was_ended = True
        self.process.stdin.close()
        self.process.terminate()


@contextmanager
def torchrun(post: Post) -> Iterator[Torchrun]:
    """Started with the processes of one machine; none of them outlives the block."""
    with subprocess.Popen(
        post.command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=post.environment(),
        # On a terminal, Ctrl-C is for the launching process alone, which asks for a checkpoint first.
        start_new_session=post.machine > 0,
    ) as process:
        running = Torchrun(process)
        try:
            yield running
        except BaseException:
            running.end()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            process.kill()
            raise


def _interface_to(host: str, port: int) -> str | None:
    """The network interface by which this machine reaches another, or that has its own address."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # Sends nothing: it only chooses the route.
        probe.connect(address)
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == own for each in addresses):
            return name
    return None
