"""What the server takes from clients, and how much of it at once."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """Everything that a client could exhaust has a bound.

    upload_bytes, upload_pixels, upload_seconds: of one picture, the last one until all of it has arrived.
    uploads_at_once: pictures that are received at the same time; others wait.
    model_queue: pictures that wait for the model, and uploads that wait; further ones get status 503.
    kept_bytes: decoded pictures of clients, in memory. drawn_bytes: crops and scenes of the index, in memory.
    threads: searches at once, and as many drawings. most_matches: of one search.
    """

    upload_bytes: int = 16 * MEBIBYTE
    upload_pixels: int = 24_000_000
    upload_seconds: float = 30.0
    uploads_at_once: int = 16
    model_queue: int = 128
    kept_bytes: int = 384 * MEBIBYTE
    drawn_bytes: int = 64 * MEBIBYTE
    threads: int = 4
    most_matches: int = 200
