"""torch's meta device in place of a GPU: it has shapes and devices, but no numbers.

So whatever would make the host wait for a GPU fails there: reading a value, shapes that depend on values
(`nonzero`, masks as indices), and copies to the host; and so does a tensor of the host among those of the
device. Copies to a GPU wait unless they are told not to: `no_waiting_copies` refuses those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
COPIES = (torch.ops.aten._to_copy, torch.ops.aten.to)
MADE_OF_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray)


@contextmanager
def no_waiting_copies() -> Iterator[None]:
    """Raise AssertionError for a copy to the device that would wait, one tensor of numbers included."""
    with ExitStack() as stack:
        stack.enter_context(_Copies())
        stack.enter_context(_Numbers())
        yield


class _Copies(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        given, made = _of((args, kwargs)), _of(found)
        # A number on the host among tensors of a device is an argument of their kernels.
        if any(each.device.type == "cpu" and each.dim() for each in given) and any(
            each.is_meta for each in (*given, *made)
        ):
            assert function.overloadpacket in COPIES, f"{function} mixes host and device"
            assert kwargs.get("non_blocking"), f"a copy of {[tuple(each.shape) for each in given]} waits"
        return found


class _Numbers(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if function in MADE_OF_NUMBERS:
            assert not found.is_meta, f"numbers are copied to the device: {args}"
        return found


def _of(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
