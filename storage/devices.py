"""A lock per GPU of this machine; the kernel releases it if the holder dies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from storage.locks import exclusive


@contextmanager
def holding_devices(names: Iterable[str]) -> Iterator[None]:
    """Hold the named devices across all stores and pipelines; waits while another process holds one.

    Names are the hardware's own (a GPU's UUID), since numbers depend on what a process may see. All are taken
    in the order of their names, so that two processes never wait for one another.
    """
    with ExitStack() as stack:
        for name in sorted(set(names)):
            stack.enter_context(exclusive(_folder() / name, what=f"on device {name}"))
        yield


def _folder() -> Path:
    """Shared by the processes of this user; $PERSONSEARCH_DEVICE_LOCKS where containers share a GPU."""
    chosen = os.environ.get("PERSONSEARCH_DEVICE_LOCKS")
    if chosen:
        return Path(chosen)
    # On Windows each user has a temporary folder.
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"personsearch-devices{user}"
