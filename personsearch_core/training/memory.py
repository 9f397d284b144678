"""Running out of memory, on any device, ends a training with advice instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from personsearch_core.errors import PersonSearchError


@contextmanager
def advice_when_out_of_memory(advice: str) -> Iterator[None]:
    """Raise PersonSearchError with the advice if the body runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise PersonSearchError(f"out of memory: {advice} ({first_line})") from error


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch's allocator of CPU memory, and CUDA's of pinned memory, raise plain RuntimeErrors.
    text = str(error)
    return "DefaultCPUAllocator" in text or "CUDA error: out of memory" in text
