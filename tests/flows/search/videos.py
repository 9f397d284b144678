"""Videos encoded for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def encode(
    path: Path, frames: Sequence[np.ndarray], seconds: Sequence[float] | None = None, rotation: int = 0
) -> Path:
    """Write frames (H, W, 3) at 25 per second or at the given seconds, to be turned anticlockwise."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "12", "preset": "veryfast"}
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (number / 25 if seconds is None else seconds[number]))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pets_frames(shared: Path, count: int) -> list[np.ndarray]:
    """Frames of PETS09-S2L1, 768x576."""
    folder = shared / "data" / "PETS09-S2L1" / "test" / "PETS09-S2L1-b" / "img1"
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.jpg"))[:count]]
