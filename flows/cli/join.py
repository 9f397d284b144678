"""`personsearch join`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.config.devices import device_name


def join(
    address: Annotated[
        str,
        typer.Argument(
            help="`run.rendezvous` of the config that the first machine runs.", metavar="HOST:PORT"
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="First GPU that takes part, such as cuda:1; as many follow as on the first machine "
            "(default: this machine's first GPU, or its CPU if the first machine trains on its own).",
        ),
    ] = "auto",
    wait: Annotated[
        float, typer.Option(min=0, metavar="MINUTES", help="How long to wait for the training to begin.")
    ] = 60.0,
) -> None:
    """Join the detector training of another machine, whose config has run.nodes.

    Ends with the training. This machine needs the same version of this software and the images at the same
    paths; Ctrl-C has all machines stop at a checkpoint.

    Example: personsearch join 10.0.0.5:29400
    """
    from flows.run.joining import join_training_at

    join_training_at(address, device=device_name(device), wait_seconds=60 * wait)
    typer.echo("the training has ended")
