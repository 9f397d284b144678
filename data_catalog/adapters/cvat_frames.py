"""What CVAT's XML says of its tasks, and which image file is which frame of a video."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from data_catalog.errors import CatalogError
from data_catalog.files import frame_number
from data_catalog.ids import whole_below

LONGEST_VIDEO = 10_000_000
"""Frames; a task that claims more is damaged."""
_OWN_NAME = re.compile(r"frame_[0-9]{1,9}$")


@dataclass
class CvatTask:
    """What <meta> says of a task or job, as text; all of it may be missing."""

    values: dict[str, str] = field(default_factory=dict)

    def number(self, name: str) -> int | None:
        """A whole number that is not negative; None for anything else."""
        return whole_below(self.values.get(name), LONGEST_VIDEO + 1)

    @property
    def subset(self) -> str:
        """The subset, which is its split; empty where it has none."""
        return self.values.get("subset", "")

    @property
    def step(self) -> int:
        """The task holds every STEP-th frame of the video."""
        found = re.search(r"step\s*=\s*(\d{1,6})", self.values.get("frame_filter", ""))
        return max(int(found[1]), 1) if found else 1

    def frames(self) -> range | None:
        """Numbers of its frames; None where the file does not say."""
        start, stop = self.number("start_frame"), self.number("stop_frame")
        size = self.number("size")
        if start is not None and stop is not None and stop >= start:
            return range(start, stop + 1, self.step)
        return range(size) if size else None


@dataclass
class CvatMeta:
    """Collects <meta>: feed it the tags that are open and the text of each element that ends."""

    tasks: list[CvatTask] = field(default_factory=list)
    is_project: bool = False
    _task: CvatTask | None = None

    def start(self, tag: str) -> None:
        """An element of <meta> begins."""
        if tag in ("task", "job"):
            self._task = CvatTask()
            self.tasks.append(self._task)
        elif tag == "project":
            self.is_project = True

    def end(self, parent: str, tag: str, text: str) -> None:
        """An element of <meta> ends."""
        if self._task is not None and parent in ("task", "job", "original_size"):
            self._task.values.setdefault(tag, text)

    def of(self, task_id: str | None) -> CvatTask:
        """The task of that id, the only one, or one that says nothing."""
        if len(self.tasks) == 1 and not self.is_project:
            return self.tasks[0]
        return next((task for task in self.tasks if task.values.get("id") == task_id), CvatTask())


def frames_of(paths: Sequence[str], task: CvatTask, source: str) -> dict[int, str]:
    """The image file of each frame.

    CVAT's own names hold the frame's number (`frame_000012.PNG`); other names are taken in order where there
    are as many images as frames, since other tools count from 1, and by their number otherwise.

    Raises:
        CatalogError: when names do not tell which frame is which.
    """
    numbers = {path: number for path in paths if (number := frame_number(path)) is not None}
    if all(_OWN_NAME.search(PurePosixPath(path).stem) for path in paths):
        return _unique(numbers, source)
    numbered = len(set(numbers.values())) == len(paths)
    frames = task.frames()
    if frames is not None and len(frames) == len(paths):
        ordered = sorted(paths, key=numbers.__getitem__) if numbered else sorted(paths)
        return dict(zip(frames, ordered, strict=True))
    if numbered:
        return {frame: path for path, frame in numbers.items()}
    said = f"{len(frames):,} frames" if frames is not None else "no frame count"
    raise CatalogError(
        f"{source}: cannot tell which of {len(paths):,} images is which frame: the file says {said}, and "
        f"names such as {paths[0]} do not number them; export the images with the annotations"
    )


def _unique(numbers: dict[str, int], source: str) -> dict[int, str]:
    frames: dict[int, str] = {}
    for path, frame in numbers.items():
        if frames.setdefault(frame, path) != path:
            raise CatalogError(
                f"{source}: {frames[frame]} and {path} are both frame {frame}: keep each task's images in a "
                "folder of their own, beside its XML file"
            )
    return frames
