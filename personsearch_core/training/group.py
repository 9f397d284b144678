"""One process, or the processes of a data-parallel training, behind the same few methods."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")

BROADCAST_BYTES = 64 << 20
"""Checkpoints go from process to process in parts of this size, which an accelerator has room for."""


class Alone:
    """A single process."""

    rank = 0
    count = 1

    def wrap(self, module: nn.Module, *, all_used: bool = True) -> nn.Module:
        """The module whose backward pass averages gradients over the processes; in place.

        all_used: whether every parameter has a gradient in every step.
        """
        return module

    @property
    def part(self) -> slice:
        """What this process takes of the rows of a batch."""
        return slice(self.rank, None, self.count)

    def join(self, own: Tensor, total: int) -> Tensor:
        """The (total, D) rows of a batch from the processes' shares, in order; `own` is this one's.

        Each process computes the loss of the whole batch. Its gradient is that of its own rows alone, times
        the number of processes, because `wrap` averages.
        """
        return own

    def sum(self, values: Tensor) -> Tensor:
        """The values' sum over all processes."""
        return values

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, by rank."""
        return list(items)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def of_first(self, value: Item) -> Item:
        """Rank 0's value: a tree of tensors (which come to the CPU), numbers, strings, lists and dicts."""
        return value


class _Joined(torch.autograd.Function):
    """`Together.join`: shares of (total, D) rows, of which process r of n has rows r, r + n ..."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, total: int) -> Tensor:
        count = dist.get_world_size()
        # Collectives take shares of one size; what is missing of the last row is cut off below.
        filled = own.new_zeros(-(-total // count), *own.shape[1:])
        filled[: len(own)] = own
        shares = [torch.empty_like(filled) for _ in range(count)]
        dist.all_gather(shares, filled)
        return torch.stack(shares, dim=1).flatten(0, 1)[:total]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        count = dist.get_world_size()
        return gradients[0][dist.get_rank() :: count] * count, None


class Together(Alone):
    """One of the processes of torch's default process group, computing on `device`."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        self._device = device

    def wrap(self, module: nn.Module, *, all_used: bool = True) -> nn.Module:
        if self._device.type != "cuda":
            return DistributedDataParallel(module, find_unused_parameters=not all_used)
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
        module = convert(module)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(module, device_ids=[self._device], find_unused_parameters=not all_used)

    def join(self, own: Tensor, total: int) -> Tensor:
        joined: Tensor = _Joined.apply(own, total)
        return joined

    def sum(self, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    def gather(self, items: Sequence[Item]) -> list[Item]:
        parts: list[list[Item]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def of_first(self, value: Item) -> Item:
        buffer = io.BytesIO()
        if self.rank == 0:
            torch.save(value, buffer)
        size = torch.tensor(buffer.tell(), device=self._device)
        dist.broadcast(size, 0)
        data = torch.empty(int(size), dtype=torch.uint8)
        if self.rank == 0:
            data = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
        for part in data.split(BROADCAST_BYTES):
            sent = part.to(self._device)
            dist.broadcast(sent, 0)
            part.copy_(sent)
        if self.rank == 0:
            return value
        # Nothing but tensors and plain containers is unpickled.
        received: Item = torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)
        return received

    def any(self, flag: bool) -> bool:
        return bool(self.sum(torch.tensor(float(flag), device=self._device)) > 0)
