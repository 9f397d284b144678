"""Serving until stopped: where, for whom, and what is printed."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from flows.errors import ConfigError
from flows.search.judgements import Judgements
from flows.serving.access import Access, is_loopback
from flows.serving.limits import Limits

TOKEN_VARIABLE = "PERSONSEARCH_TOKEN"
_SHORTEST_TOKEN = 16
_CONNECTIONS = 512
_SHUTDOWN_SECONDS = 3


def chosen_token(host: str, given: str | None) -> str | None:
    """The token: as given or in $PERSONSEARCH_TOKEN; a new one beyond loopback; none on loopback.

    Raises ConfigError for one that could be guessed.
    """
    token = given if given is not None else os.environ.get(TOKEN_VARIABLE) or None
    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"a token has at least {_SHORTEST_TOKEN} ASCII characters and no spaces")
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 is any that is free. Raises ConfigError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(
            f"--host {host}: {error.strerror or error}; give an address of this machine, such as 127.0.0.1"
        ) from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port"
        ) from error
    return listening


def run(
    index: Path,
    judgements: Judgements,
    *,
    host: str,
    port: int,
    token: str | None,
    device: str = "auto",
    roots: Mapping[str, Path] | None = None,
    limits: Limits | None = None,
    say: Callable[[str], None],
) -> None:
    """Serve an index until the process is asked to stop. Raises ConfigError if it cannot."""
    import uvicorn

    from flows.serving.app import create_app
    from flows.serving.searching import Served

    if token is None and not is_loopback(host):
        raise ConfigError(f"{host} is reached from other machines: a token is required")
    judgements.read()
    with listen(host, port) as listening:
        served = Served(index, judgements, device=device, roots=roots, limits=limits)
        own_port = int(listening.getsockname()[1])
        access = Access(host, own_port, token)
        shown = f"[{host}]" if ":" in host else host
        say(f"serving {index} at http://{shown}:{own_port}/{f'?token={token}' if token else ''}")
        if not is_loopback(host):
            say("traffic is not encrypted: beyond a network that you trust, put a proxy with TLS in front")
        config = uvicorn.Config(
            create_app(served, access),
            log_level="warning",
            access_log=False,  # addresses hold tokens
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listening])
