"""How many stages of a study are built at once, and on which devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from data_catalog.parallel import cores
from flows.config.sections import Processors
from flows.errors import ConfigError

if TYPE_CHECKING:
    from flows.studies.schedule import Slots

Parallel = Annotated[
    int | None,
    typer.Option(min=1, help="Stages to build at once (default: one per GPU, or one per two CPU cores)."),
]

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="PLACE",
        help="Run the members on other machines, whose workers share the store: the name of a Prefect work "
        "pool, or a Dask scheduler's address, such as tcp://host:8786.",
    ),
]


def require_one_place(on: str | None, parallel: int | None) -> None:
    """Raise ConfigError if other machines have an empty name, or come with what holds for this one alone."""
    if on is not None and not on.strip():
        raise ConfigError("--on is empty: name a Prefect work pool, or a Dask scheduler's address")
    if on is not None and parallel is not None:
        raise ConfigError(
            f"--parallel {parallel} applies to this machine only, not to --on {on}: limit each worker "
            f"instead (prefect worker start --limit {parallel}, dask worker --nthreads {parallel})"
        )


def slots(parallel: int | None, run: Processors) -> Slots:
    """One slot per GPU, or one per two CPU cores: a single member keeps few more of them busy.

    Stages that the config gives a number of threads have as many slots as fit the cores. If the config names
    a device, slots do not, and a GPU gets one slot by default. Slots share the CPU's threads.
    """
    from flows.studies.schedule import Slots

    on_cpu = max(1, cores() // (run.threads or 2))
    devices: list[str | None]
    if run.device != "auto":
        devices = [None] * (parallel or (1 if run.device.startswith("cuda") else on_cpu))
    else:
        import torch

        gpus = torch.cuda.device_count()  # CUDA_VISIBLE_DEVICES may hide some
        count = parallel or gpus or on_cpu
        devices = [f"cuda:{number % gpus}" if gpus else None for number in range(count)]
    return Slots(devices, max(1, cores() // len(devices)))
