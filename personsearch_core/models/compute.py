"""How a model computes: precision, memory format, compilation; and which settings are fast where."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torchvision.models.resnet import BasicBlock, Bottleneck

from personsearch_core.recipes import Compute

log = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)
Result = TypeVar("Result")

COMPILED = (BasicBlock, Bottleneck)
_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

VERSIONS_COMPILED = 64
"""Per graph or class of blocks: training and evaluation, batch sizes, numbers of people, shapes of blocks."""

CPU_INFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Their names in /proc/cpuinfo on x86-64 and on Arm."""


def autocast(compute: Compute, device: torch.device) -> torch.autocast:
    """Context that runs a forward pass at the recipe's precision; does nothing for fp32."""
    dtype = _AUTOCAST_DTYPES.get(compute.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def prepare(
    module: Module,
    compute: Compute,
    *,
    any_batch: bool = False,
    unbroken: bool = True,
    cuda_graphs: Sequence[str] = (),
) -> Module:
    """Set memory format and compilation in place, and return the module.

    The methods in a module's `GRAPHS` are compiled, each as one graph. Of other modules, blocks are compiled
    one by one, so that those of one shape share code. Each batch size is compiled separately, which is
    fastest if there is only one, see `batch_on`; with `any_batch` one compilation serves them all.

    unbroken: raise an error if a method cannot be one graph; norms over processes break it, for instance.
    cuda_graphs: those of `GRAPHS` whose kernels a GPU replays as one CUDA graph. What they return, and
    gradients through them, hold until the next call, so nothing may be added up over calls.
    """
    if compute.precision == "bf16":
        _warn_if_bf16_is_slow(model_device(module).type)
    if compute.channels_last:
        module.to(memory_format=torch.channels_last)
    if not compute.compile:
        return module
    on_gpu = model_device(module).type == "cuda"
    for name in (graphs := getattr(module, "GRAPHS", ())):
        method = getattr(type(module), name).__get__(module)
        replayed = on_gpu and name in cuda_graphs
        setattr(module, name, compiled(method, unbroken=unbroken, replayed=replayed))
    for part in () if graphs else module.modules():
        if isinstance(part, COMPILED):
            part.compile(dynamic=None if any_batch else False, **_enough_versions())
    return module


def compiled(
    function: Callable[..., Result], *, unbroken: bool = True, replayed: bool = False
) -> Callable[..., Result]:
    """The function as one graph, compiled for each size of its arguments when it is first called with it.

    unbroken: raise an error if it cannot be one graph. replayed: as a CUDA graph, see `prepare`.
    """
    mode = "reduce-overhead" if replayed else None
    graph: Callable[..., Result] = torch.compile(
        function, fullgraph=unbroken, dynamic=False, mode=mode, **_enough_versions()
    )
    return graph


def is_eager_on_cpu(tensor: Tensor) -> bool:
    """Whether shapes may follow the data: there are no launches to save, and padding would cost work."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def arrange(images: Tensor, compute: Compute) -> Tensor:
    """A batch (B, C, H, W) in the memory format that the model computes in."""
    wanted = torch.channels_last if compute.channels_last else torch.contiguous_format
    return images.contiguous(memory_format=wanted)


def batch_on(
    device: torch.device, images: Sequence[Tensor], compute: Compute, size: int, *, full: bool = False
) -> Tensor:
    """Images (C, H, W) as a batch on the device, arranged; a full batch has `size` images.

    If compiled, a smaller batch is padded with black images: another size would compile again.
    With `full` it always is: convolutions of a single image may add in another order than those of several.
    """
    missing = size - len(images) if compute.compile or full else 0
    filled = [*images, *[torch.zeros_like(images[0])] * missing]
    return arrange(on_device(torch.stack(filled), device), compute)


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Values of this machine's memory on the device: through pinned memory, so as not to wait for a GPU."""
    pinned = values.pin_memory() if device.type == "cuda" and not values.is_cuda else values
    return pinned.to(device, non_blocking=True)


def neighbours_count(compute: Compute, device: torch.device) -> str | None:
    """Why an image's maps may have other bits beside other images in a batch of one size; None if the same.

    On a CPU, each number of a map is summed by itself, in an order that neither the image's place in the
    batch nor the others change. Tests hold that; of anything else it is not known.
    """
    if device.type != "cpu":
        return f"on {device.type}, bits may depend on what else is in a batch"
    if compute.compile:
        return "in a compiled graph, bits may depend on what else is in a batch"
    if compute.precision == "fp16" or (compute.precision == "bf16" and not has_bf16("cpu")):
        return f"in {compute.precision} on this CPU, bits may depend on what else is in a batch"
    return None


def quickest_compute(device: torch.device) -> Compute:
    """Good settings to start with on a device; docs/benchmarks.md has measurements on CPUs."""
    if device.type == "cuda":
        return Compute(precision="bf16", channels_last=True, compile=True)
    return Compute(precision="bf16" if has_bf16(device.type) else "fp32", channels_last=True)


def _enough_versions() -> dict[str, Any]:
    """All blocks of a class count as one function; by default torch compiles eight versions of it."""
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        return {"recompile_limit": VERSIONS_COMPILED}
    dynamo.recompile_limit = max(dynamo.recompile_limit, VERSIONS_COMPILED)  # torch before 2.14
    return {}


@cache
def has_bf16(device_type: str) -> bool:
    """Whether a kind of device has bfloat16; a CPU without its instructions emulates it, slowly."""
    if device_type != "cpu":
        return True
    try:
        return not BF16_INSTRUCTIONS.isdisjoint(CPU_INFO.read_text().split())
    except FileNotFoundError:
        return False


@cache
def _warn_if_bf16_is_slow(device_type: str) -> None:
    if not has_bf16(device_type):
        log.warning("this CPU has no bfloat16 instructions: bf16 is several times slower than fp32 here")


def model_device(module: nn.Module) -> torch.device:
    """The device of a model's parameters."""
    return next(module.parameters()).device
