"""`personsearch join`: this machine's part in a training that another machine runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flows.config.devices import gpu_names, torch_device
from flows.config.rendezvous import rendezvous_address
from flows.config.sections import Processors
from flows.console import told
from flows.errors import ConfigError, Interrupted
from flows.provenance import code
from storage.devices import holding_devices


def join_training_at(address: str, *, device: str, wait_seconds: float) -> None:
    """Take part until the training ends; holds the GPUs that compute.

    Raises Interrupted if it is stopped, here or on another machine, ConfigError if this machine cannot take
    part, and what `join_training` raises.
    """
    host, port = rendezvous_address(address)  # refuses what is wrong before torch is loaded
    from personsearch_core.training.distributed import SHARE
    from personsearch_core.training.joining import join_training
    from personsearch_core.training.loop import TrainingStopped

    with ExitStack() as held, _asked_to_stop() as should_stop:

        def prepare(kind: str, devices: int) -> int:
            name = kind if device == "auto" else device
            if torch_device(name).type != kind:
                raise ConfigError(f"--device {device}: the training at {address} computes on {kind}")
            held.enter_context(holding_devices(gpu_names(Processors(device=name, devices=devices))))
            return torch_device(name).index or 0

        try:
            join_training(
                SHARE,
                host,
                port,
                code=code(),
                wait_seconds=wait_seconds,
                prepare=prepare,
                should_stop=should_stop,
                tell=told.info,
            )
        except TrainingStopped as stopped:
            raise Interrupted(str(stopped)) from stopped


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C, SIGTERM or a closed terminal has asked to stop; a second Ctrl-C ends at once."""
    asked = threading.Event()

    def ask(number: int, _: object) -> None:
        asked.set()
        signal.signal(number, before[number])

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: dict[int, Any] = {each: signal.getsignal(each) for each in numbers}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(each, ask)
    try:
        yield asked.is_set
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
