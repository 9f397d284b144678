"""Devices as configs and options name them, `auto`, `cpu`, `cuda`, `cuda:1`, and as stages compute on them.

Whether a name is right is known without torch; whether the device exists here is not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flows.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from flows.config.sections import Processors

_NAME = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d{0,2}))?")


def device_name(name: str) -> str:
    """The name itself. Raises ConfigError if it is not the name of a device."""
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name!r} is not a device: use auto, cpu, cuda, or one GPU by its number, such as cuda:1"
        )
    return name


def torch_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU, or else the CPU.

    Raises ConfigError if the name is not that of a device, or if this machine does not have that GPU.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device_name(name) == "auto":
        name = "cuda" if gpus else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ConfigError(f"device {name} is not available; GPUs visible here: {gpus}; use cpu or auto")
    return device


def stage_device(processors: Processors) -> torch.device:
    """Set the number of threads, and return the device to compute on.

    Raises ConfigError if this machine does not have it.
    """
    import torch

    if processors.threads is not None:
        torch.set_num_threads(processors.threads)
    return torch_device(processors.device)


def device_names(processors: Processors) -> tuple[str, ...]:
    """Every device that is named: `devices` GPUs from `device` on, or the CPU."""
    from personsearch_core.training.launch import cuda_numbers

    device = stage_device(processors)
    if device.type != "cuda":
        return (str(device),)
    return tuple(f"cuda:{number}" for number in cuda_numbers(device, processors.devices))


def gpu_names(processors: Processors) -> list[str]:
    """The UUIDs of the GPUs that are named; none on the CPU.

    Raises PersonSearchError if this machine does not have them.
    """
    import torch

    names = device_names(processors)
    return [str(torch.cuda.get_device_properties(name).uuid) for name in names if name != "cpu"]
