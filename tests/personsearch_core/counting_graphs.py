"""Counts what `torch.compile` traces, without generating code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend


@contextmanager
def counted_graphs(backend: str) -> Iterator[CompileCounterWithBackend]:
    """Within, `torch.compile` uses this backend, and the counter has its graphs: `aot_eager` also traces
    backward passes."""
    counter, compile_ = CompileCounterWithBackend(backend), torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch, "compile", lambda method, **options: compile_(method, backend=counter, **options)
        )
        torch._dynamo.reset()
        yield counter
        torch._dynamo.reset()
