"""One process, or the processes of a data-parallel training, behind the same few methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")


class Alone:
    """A single process."""

    rank = 0
    count = 1

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages gradients over the processes."""
        return module

    def sum(self, values: Tensor) -> Tensor:
        """The values' sum over all processes."""
        return values

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, by rank."""
        return list(items)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag


class Together(Alone):
    """One of the processes of torch's default process group, computing on `device`."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        self._device = device

    def wrap(self, module: nn.Module) -> nn.Module:
        if self._device.type == "cuda":
            convert = nn.SyncBatchNorm.convert_sync_batchnorm
            module = convert(module)  # type: ignore[no-untyped-call]
            return DistributedDataParallel(module, device_ids=[self._device])
        return DistributedDataParallel(module)

    def sum(self, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    def gather(self, items: Sequence[Item]) -> list[Item]:
        parts: list[list[Item]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def any(self, flag: bool) -> bool:
        return bool(self.sum(torch.tensor(float(flag), device=self._device)) > 0)
