"""A folder in memory: flushing it to disk costs nothing, which is most of the time of many small tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def folder_in_memory(free: int = 0) -> str | None:
    """Its path if it exists and has `free` bytes to spare; None otherwise."""
    memory = Path("/dev/shm")
    is_there = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= free
    return str(memory) if is_there else None
