"""Addresses at which the machines of one training meet: HOST or HOST:PORT."""

from __future__ import annotations

from flows.errors import ConfigError

PORT = 29400
"""torchrun's own."""


def rendezvous_address(text: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[::1]:port`. Raises ConfigError where it is none."""
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        host, port = text, str(PORT)
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or "/" in host or "[" in host or any(each.isspace() for each in host):
        raise ConfigError(f"{text!r} is not an address: write HOST:PORT, such as 10.0.0.5:{PORT}")
    if ":" in host and not bracketed:
        raise ConfigError(f"{text!r} is not an address: write [HOST]:PORT around an IPv6 address")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ConfigError(f"{text!r}: the port is a number from 1 to 65535, by default {PORT}")
    if host in ("0.0.0.0", "::"):
        raise ConfigError(f"{text!r}: write the one address at which other machines reach this one")
    return host, int(port)


def rendezvous_name(text: str) -> str:
    """The address as it was written. Raises ConfigError where it is none."""
    rendezvous_address(text)
    return text
