"""Frames of a video by PyAV, whose wheels bring FFmpeg along: sampled by count or by time, upright."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from torch import Tensor

from flows.errors import ConfigError
from flows.search.layout import Settings

DEFAULT_PER_SECOND = 1.0
_CLOSE = 1e-6


@dataclass(frozen=True)
class Frame:
    """One frame: its number among the decoded ones, seconds from the start, pixels uint8 (3, H, W)."""

    number: int
    time_code: float
    pixels: Tensor


class BadVideo(ConfigError):
    """A video that cannot be opened, or not decoded to its end; the message says why."""


def sampled_frames(path: Path, settings: Settings, *, first: int = 0) -> Iterator[Frame]:
    """Every n-th frame, or the first frame at or after each tick of the clock; from frame number `first`.

    Time codes are the video's own, so they are right where its frame rate varies.

    Raises
    ------
    BadVideo
        If the file cannot be opened, or as soon as it cannot be decoded further.
    """
    rate = settings.per_second or DEFAULT_PER_SECOND
    tick = 0
    for number, frame, time_code in _decoded(path):
        if settings.every is not None:
            wanted = number % settings.every == 0
        else:
            wanted = time_code * rate >= tick - _CLOSE
            if wanted:
                tick = math.floor(time_code * rate + _CLOSE) + 1
        if wanted and number >= first:
            yield Frame(number, time_code, _upright(frame))


def frame_at(path: Path, time_code: float) -> Tensor:
    """The frame with a time code, uint8 (3, H, W). Raises BadVideo if it is missing."""
    for _, frame, own in _decoded(path, start=time_code):
        if own >= time_code - 1e-4:
            return _upright(frame)
    raise BadVideo(f"{path} has no frame at {time_code:.3f} s")


def expected_frames(path: Path, settings: Settings) -> int:
    """Roughly how many frames will be sampled, from the header; 1 where it says nothing."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            seconds = (container.duration or 0) / av.time_base
            frames = stream.frames or seconds * float(stream.average_rate or 0)
    except (av.FFmpegError, IndexError, OSError, ValueError):
        return 1
    if settings.every is not None:
        return max(1, round(frames / settings.every))
    return max(1, round(min(frames, seconds * (settings.per_second or DEFAULT_PER_SECOND))))


def _decoded(path: Path, start: float | None = None) -> Iterator[tuple[int, av.VideoFrame, float]]:
    """(number, frame, seconds from the start); numbers only count from 0 without `start`."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadVideo(f"{path} has no video in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            begin = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
            if start is not None and start > 1 and stream.time_base:
                container.seek(int((begin + start - 0.5) / stream.time_base), stream=stream)
            rate = float(stream.average_rate or 25)
            for number, frame in enumerate(container.decode(stream)):
                time_code = frame.time - begin if frame.time is not None else number / rate
                yield number, frame, time_code
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, BadVideo):
            raise
        why = getattr(error, "strerror", None) or error
        raise BadVideo(f"{path} cannot be decoded: {why}") from error


def _upright(frame: av.VideoFrame) -> Tensor:
    """Pixels as a player shows them: the display matrix turns by quarters counterclockwise."""
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    quarters = round((frame.rotation or 0) / 90) % 4
    return torch.rot90(pixels, quarters, dims=(1, 2)).contiguous()
