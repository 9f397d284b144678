"""Pictures for pages and notebooks: people outlined and numbered, and images as `data:` URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

OUTLINE = (255, 122, 0)
_QUALITY = 78


def outline(
    image: Image.Image, boxes: Iterable[Sequence[float]], labels: Iterable[str] | None = None
) -> Image.Image:
    """A copy of an image with boxes (x1, y1, x2, y2 in its pixels) and a label on each, if given."""
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(max(drawn.size) / 400))
    font = ImageFont.load_default(size=max(12, max(drawn.size) / 50))
    listed = list(boxes)
    for box, label in zip(listed, labels or [""] * len(listed), strict=True):
        x1, y1, x2, y2 = (float(value) for value in box)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=OUTLINE, width=width)
        if label:
            around = pen.textbbox((x1 + 2 * width, y1 + width), label, font=font)
            pen.rectangle((x1, y1, around[2] + width, around[3] + width), fill=OUTLINE)
            pen.text((x1 + 2 * width, y1 + width), label, fill="black", font=font)
    return drawn


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A copy of an image, shrunk to fit (width, height)."""
    shrunk = image.copy()
    shrunk.thumbnail(size, Image.Resampling.LANCZOS)
    return shrunk


def cropped(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """The part of an image in a box, clipped to the image and at least one pixel wide and high."""
    width, height = image.size
    x1 = min(max(round(box[0]), 0), width - 1)
    y1 = min(max(round(box[1]), 0), height - 1)
    return image.crop(
        (x1, y1, min(max(round(box[2]), x1 + 1), width), min(max(round(box[3]), y1 + 1), height))
    )


def as_data_uri(image: Image.Image) -> str:
    """The image as a JPEG in a `data:` URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
