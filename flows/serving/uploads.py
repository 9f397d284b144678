"""Pictures of clients: received within bounds, decoded once, and kept in memory only, the last used ones."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
import threading
import warnings
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Request
from PIL import Image, UnidentifiedImageError
from starlette.requests import ClientDisconnect
from torch import Tensor

from flows.search.index import Index
from flows.serving.drawing import DrawnJpeg, as_jpeg
from flows.serving.limits import MEBIBYTE, Limits
from flows.serving.refusals import Refused
from personsearch_core.data.decoding import read_image
from personsearch_core.errors import PersonSearchError
from personsearch_core.search.people import FoundPeople

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
"""Pillow reads more, some of them by running other programs."""
_MOST_SCANS = 64
"""Of a progressive JPEG; each costs a pass over all pixels. Cameras and editors write 10 or fewer."""
_SCAN = b"\xff\xda"


@dataclass(frozen=True, eq=False)
class Upload:
    """A picture and the people in it, by a token that only its client knows. model: what found them."""

    token: str
    model: str
    sha256: str
    people: FoundPeople
    drawn: DrawnJpeg

    @property
    def bytes(self) -> int:
        return self.people.pixels.nbytes + len(self.drawn.jpeg)


Value = TypeVar("Value")


class RecentValues(Generic[Value]):
    """Values by key up to a number of bytes in all; those that were not used for longest go first."""

    def __init__(self, most_bytes: int, size: Callable[[Value], int]) -> None:
        self._most, self._size = most_bytes, size
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def add(self, key: str, value: Value) -> None:
        with self._lock:
            if (old := self._values.pop(key, None)) is not None:
                self._bytes -= self._size(old)
            self._values[key] = value
            self._bytes += self._size(value)
            while self._bytes > self._most and len(self._values) > 1:
                self._bytes -= self._size(self._values.popitem(last=False)[1])


class Receiver:
    """Reads the bodies of uploads: a few at once, each of bounded size and time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.uploads_at_once)
        self._waiting = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body; its memory counts against the bound until the block ends. Raises Refused."""
        limits = self._limits
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limits.upload_bytes:
            raise self._too_large()
        if self._waiting >= limits.model_queue:
            raise Refused(503, "too many pictures are being sent: try again in a moment", close=True)
        self._waiting += 1
        try:
            async with self._slots:
                try:
                    async with asyncio.timeout(limits.upload_seconds):
                        body = await self._read(request)
                except TimeoutError as error:
                    message = f"the picture did not arrive within {limits.upload_seconds:g} s"
                    raise Refused(408, message, close=True) from error
                yield body
        finally:
            self._waiting -= 1

    async def _read(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > self._limits.upload_bytes:
                    raise self._too_large()
        except ClientDisconnect as error:
            raise Refused(400, "the connection was closed before the picture had arrived") from error
        if not body:
            raise Refused(422, "the body is empty: send the bytes of a picture")
        return bytes(body)

    def _too_large(self) -> Refused:
        most = self._limits.upload_bytes / MEBIBYTE
        return Refused(413, f"the picture is larger than {most:g} MiB: send a smaller one", close=True)


def decoded(encoded: bytes, max_pixels: int) -> Tensor:
    """The pixels of an upload, uint8 (3, H, W). Its header is checked before anything is decoded.

    Raises Refused (status 413 or 415).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                width, height, scans = *image.size, encoded.count(_SCAN) if image.format == "JPEG" else 0
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Refused(415, f"this is not a picture of a known format ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise Refused(413, _too_many_pixels(None, max_pixels)) from error
    if width * height > max_pixels:
        raise Refused(413, _too_many_pixels((width, height), max_pixels))
    if scans > _MOST_SCANS:
        raise Refused(415, f"this JPEG has {scans} scans, more than {_MOST_SCANS}: save it again")
    try:
        return read_image(encoded, max_pixels=max_pixels)
    except PersonSearchError as error:
        raise Refused(415, str(error)) from error


def found_in(index: Index, encoded: bytes, max_pixels: int) -> Upload:
    """Decode an upload, find its people and give it a token. Raises Refused."""
    people = index.people(decoded(encoded, max_pixels))
    token, digest = secrets.token_urlsafe(16), hashlib.sha256(encoded).hexdigest()
    return Upload(token, index.description.model, digest, people, as_jpeg(people.picture()))


def _too_many_pixels(size: tuple[int, int] | None, most: int) -> str:
    what = f"{size[0]}x{size[1]} pixels" if size else "far too many pixels"
    return f"the picture has {what}; at most {most / 1e6:g} megapixels are taken: send a smaller one"
