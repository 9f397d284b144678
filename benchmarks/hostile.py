"""Files that are made to hurt whoever decodes them."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def png(width: int, height: int, *extra: bytes) -> bytes:
    """A valid PNG of any size in one bit per pixel, all black; `extra` chunks come before the pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def text_bomb(megabytes: int = 64) -> bytes:
    """A small PNG with a compressed comment that expands to this."""
    return png(64, 64, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(megabytes << 20), 1)))


def jpeg_of_many_scans(count: int = 5000) -> bytes:
    """A progressive JPEG whose last scan is repeated, each of which costs a pass over all pixels."""
    buffer = io.BytesIO()
    Image.new("L", (400, 400), 90).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + b"\xff\xd9"
