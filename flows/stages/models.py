"""The devices that stages compute on. Imports torch."""

from __future__ import annotations

import torch

from flows.config.devices import torch_device
from flows.config.models import Processors
from personsearch_core.training.distributed import cuda_numbers


def stage_device(processors: Processors) -> torch.device:
    """The device to compute on. Sets the number of threads, too. Raises ConfigError where it is not here."""
    if processors.threads is not None:
        torch.set_num_threads(processors.threads)
    return torch_device(processors.device)


def device_names(processors: Processors) -> tuple[str, ...]:
    """Every device that is named: `devices` GPUs from `device` on, or the CPU."""
    device = stage_device(processors)
    if device.type != "cuda":
        return (str(device),)
    return tuple(f"cuda:{number}" for number in cuda_numbers(device, processors.devices))


def gpu_names(processors: Processors) -> list[str]:
    """The UUIDs of the GPUs that are named; none on the CPU.

    Raises PersonSearchError where they are not here.
    """
    device = stage_device(processors)
    if device.type != "cuda":
        return []
    numbers = cuda_numbers(device, processors.devices)
    return [str(torch.cuda.get_device_properties(number).uuid) for number in numbers]
