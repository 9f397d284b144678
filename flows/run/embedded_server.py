"""The process of an embedded Prefect API: `python -m flows.run.embedded_server IDLE_SECONDS [FOLDER NAME]`.

Without a place it is the one of its own settings, whose name it prints; it ends if they name another API.
It belongs to no run. It ends when no run has held a lease for IDLE_SECONDS, or when its folder is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows.run.embedded_api import ApiFiles
from flows.run.prefect_api import LOOPBACK, configured_url, mark_as_crashed, own_place
from flows.run.prefect_defaults import be_quiet, fewer_collections
from storage.locks import exclusive, exclusive_now, is_held

if TYPE_CHECKING:
    from uvicorn import Server

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_SHUTDOWN_SECONDS = 5
_NOT_STARTED = 3


def serve(place: ApiFiles, idle_seconds: float) -> int:
    """Serve until idle and return the exit status; at once where another process serves already."""
    with exclusive_now(place.lock) as alone:
        if not alone:
            return 0
        try:
            return _serve(place, idle_seconds)
        finally:
            place.address.unlink(missing_ok=True)


def _serve(place: ApiFiles, idle_seconds: float) -> int:
    be_quiet()
    with fewer_collections():
        import uvicorn
        from prefect.server.api.server import create_app

    # Everything is imported, so the folder in which the first run was started may be deleted.
    os.chdir("/")
    place.clear_others()
    app = create_app(ephemeral=True)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=_SHUTDOWN_SECONDS)
    )
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        asyncio.run(_run(server, listening, place, idle_seconds))
    if not server.started:
        return _NOT_STARTED
    place.log.unlink(missing_ok=True)
    return 0


async def _run(server: Server, listening: socket.socket, place: ApiFiles, idle_seconds: float) -> None:
    # One at a time: a fresh database is migrated by the first API that finds it.
    with exclusive(place.migration, what="the database of the Prefect API"):
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.02)
    if server.started:
        url = f"http://{LOOPBACK}:{listening.getsockname()[1]}/api"
        watch = asyncio.create_task(_until_idle(place, url, idle_seconds))
        await asyncio.wait([serving, watch], return_when=asyncio.FIRST_COMPLETED)
        watch.cancel()
        server.should_exit = True
    await serving


async def _until_idle(place: ApiFiles, url: str, idle_seconds: float) -> None:
    """Show the address; return when no run has used the API for so long, or when its folder is gone."""
    place.write_address(url)
    used = time.monotonic()
    while is_held(place.lock) == os.getpid():
        for flow_run in place.killed_runs():
            await asyncio.to_thread(mark_as_crashed, flow_run, url)
        if place.is_in_use():
            used = time.monotonic()
        elif time.monotonic() - used >= idle_seconds:
            # A run that took its lease before the address went is seen now; a later one starts an API.
            place.address.unlink(missing_ok=True)
            if not place.is_in_use():
                return
            place.write_address(url)
        await asyncio.sleep(_LOOK_SECONDS)


def _serve_own(idle_seconds: float) -> int:
    """Serve the place of this process's own settings."""
    be_quiet()
    with fewer_collections():
        if configured_url():
            return 0
        place = own_place()
    print(place.name, flush=True)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return serve(place, idle_seconds)


if __name__ == "__main__":
    seconds, place = float(sys.argv[1]), sys.argv[2:]
    sys.exit(serve(ApiFiles(Path(place[0]), place[1]), seconds) if place else _serve_own(seconds))
