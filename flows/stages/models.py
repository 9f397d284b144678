"""What the makers of several stages share: devices, and models out of artifacts. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flows.config.devices import torch_device
from flows.stages.base import StageContext
from personsearch_core.models.detector import Detector
from personsearch_core.models.weights import load_detector
from personsearch_core.training.distributed import cuda_numbers


def stage_device(options: Mapping[str, Any]) -> torch.device:
    """The device that the options name. Sets the threads, too. Raises ConfigError where it is not here."""
    if options.get("threads"):
        torch.set_num_threads(options["threads"])
    return torch_device(options["device"])


def device_names(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Every device that the options name: `devices` GPUs from `device` on, or the CPU."""
    device = stage_device(options)
    if device.type != "cuda":
        return (str(device),)
    return tuple(f"cuda:{number}" for number in cuda_numbers(device, options.get("devices", 1)))


def gpu_names(options: Mapping[str, Any]) -> list[str]:
    """The UUIDs of the GPUs that the options name; none on the CPU.

    Raises PersonSearchError where they are not here.
    """
    device = stage_device(options)
    if device.type != "cuda":
        return []
    numbers = cuda_numbers(device, options.get("devices", 1))
    return [str(torch.cuda.get_device_properties(number).uuid) for number in numbers]


def load_stage_detector(context: StageContext, device: torch.device) -> Detector | None:
    """The detector among a stage's inputs, in evaluation mode; None where the stage has none."""
    if "detector" not in context.artifacts:
        return None
    return load_detector(context.artifacts["detector"].path).to(device).eval()
