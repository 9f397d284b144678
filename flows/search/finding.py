"""The people of files, in order: read and decoded ahead in threads, found and embedded in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from flows.search.camera_and_time import time_in_name, time_taken
from flows.search.layout import Settings
from flows.search.sources import Key, SceneFile
from flows.search.video import BadVideo, Frame, sampled_frames
from personsearch_core.data.decoding import read_image
from personsearch_core.data.network_input import PlacedImage
from personsearch_core.data.prefetch import decode_threads, in_thread, prefetch
from personsearch_core.errors import PersonSearchError
from personsearch_core.search.network import People, PersonSearchNet
from storage.digests import digest_file

_FRAMES_AHEAD = 4
"""Decoded frames of a video that wait to be resized."""


@dataclass(frozen=True)
class Read:
    """One step through the files: an image or a frame, or the end of a file (`ends`), or both."""

    source: SceneFile
    ends: bool
    sha256: str = ""
    time: datetime | None = None
    frame: int | None = None
    time_code: float | None = None
    placed: PlacedImage | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Found:
    """A step and the people in its image, if it has one."""

    read: Read
    people: People | None


Job = Callable[[], Read]


def find_people(
    net: PersonSearchNet,
    sources: Sequence[SceneFile],
    settings: Settings,
    batch: int,
    first_frames: Mapping[Key, int] | None = None,
) -> Iterator[list[Found]]:
    """Find the people in files, batch by batch; a batch has `batch` images, the last one may have fewer.

    A file that cannot be read is a step without an image and with a fault. `first_frames` says by key at
    which frame a video goes on.
    """
    jobs = in_thread(_jobs(net, sources, settings, first_frames or {}), ahead=_FRAMES_AHEAD)
    threads = decode_threads()
    steps = prefetch(lambda job: job(), jobs, threads=threads, ahead=2 * batch + threads)
    pending: list[Read] = []
    with closing(jobs), closing(steps):
        for step in steps:
            pending.append(step)
            if sum(each.placed is not None for each in pending) == batch:
                yield _searched(net, pending, settings)
                pending = []
        if pending:
            yield _searched(net, pending, settings)


def _searched(net: PersonSearchNet, steps: Sequence[Read], settings: Settings) -> list[Found]:
    placed = [step.placed for step in steps if step.placed is not None]
    people = iter(net.search_placed(placed, **settings.finding()))
    return [Found(step, next(people) if step.placed is not None else None) for step in steps]


def _jobs(
    net: PersonSearchNet,
    sources: Sequence[SceneFile],
    settings: Settings,
    first_frames: Mapping[Key, int],
) -> Iterator[Job]:
    for source in sources:
        if source.kind == "image":
            yield partial(_read_image, net, source)
        else:
            yield from _video_jobs(net, source, settings, first_frames.get(source.key, 0))


def _read_image(net: PersonSearchNet, source: SceneFile) -> Read:
    try:
        encoded = source.path.read_bytes()
        placed = net.place(read_image(encoded))
    except OSError as error:
        return Read(source, ends=True, fault=f"{source.path}: {error.strerror or error}")
    except PersonSearchError as error:
        fault = str(error).replace("the image", f"image {source.path}", 1)
        return Read(source, ends=True, fault=fault)
    time = time_taken(encoded) or time_in_name(source.image)
    return Read(source, ends=True, sha256=hashlib.sha256(encoded).hexdigest(), time=time, placed=placed)


def _video_jobs(net: PersonSearchNet, source: SceneFile, settings: Settings, first: int) -> Iterator[Job]:
    """Jobs for the frames and one for the end; decoding itself happens here, frame after frame."""
    time, seen, sha256 = time_in_name(source.image), first > 0, ""
    fault: str | None
    try:
        sha256 = digest_file(source.path)
        for frame in sampled_frames(source.path, settings, first=first):
            seen = True
            yield partial(_place_frame, net, source, frame, sha256, time)
    except (BadVideo, OSError) as error:
        # What was decoded before the fault counts.
        fault = f"{source.path} ends early: {error}" if seen else str(error)
    else:
        fault = None if seen else f"{source.path} has no frames"
    end = Read(source, ends=True, sha256=sha256 if seen else "", time=time, fault=fault)
    yield lambda: end


def _place_frame(
    net: PersonSearchNet, source: SceneFile, frame: Frame, sha256: str, time: datetime | None
) -> Read:
    return Read(
        source,
        ends=False,
        sha256=sha256,
        time=time,
        frame=frame.number,
        time_code=frame.time_code,
        placed=net.place(frame.pixels),
    )
