"""Names of devices, as configs and options give them: `auto`, `cpu`, `cuda`, `cuda:1`.

What is wrong with a name is known without torch; whether the device is here is not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flows.errors import ConfigError

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d{0,2}))?")


def device_name(name: str) -> str:
    """The name itself. Raises ConfigError where it is none."""
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"{name!r} is no device: use auto, cpu, cuda, or one GPU by its number, cuda:1")
    return name


def torch_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU, or else the CPU.

    Raises ConfigError where the name is none, or where that GPU is not here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device_name(name) == "auto":
        name = "cuda" if gpus else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ConfigError(f"device {name} was asked for, {gpus} GPUs can be seen here: use cpu or auto")
    return device
