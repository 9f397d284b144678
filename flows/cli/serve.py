"""`personsearch serve`: the search page of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.index import root_paths
from flows.cli.judge import JudgementsFile, judgements_of
from flows.cli.options import Device, SceneRoots


def serve(
    index: Annotated[Path, typer.Argument(help="An index.", metavar="INDEX")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a token is required.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port (0: any free port).")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            help="Token that every request needs (default: $PERSONSEARCH_TOKEN, then none on this machine "
            "and a new one beyond it). Other users of the machine see command lines, so prefer the variable."
        ),
    ] = None,
    judgements: JudgementsFile = None,
    device: Device = "auto",
    root: SceneRoots = None,
) -> None:
    """Search an index in the browser: a page on this machine, and the same over HTTP for programs.

    The page loads nothing from other servers; /openapi.json describes the interface.

    Example: personsearch serve people --port 8080
    """
    from flows.serving.running import chosen_token, run

    run(
        index,
        judgements_of(index, judgements),
        host=host,
        port=port,
        token=chosen_token(host, token),
        device=device,
        roots=root_paths(index, root or ()),
        say=typer.echo,
    )
