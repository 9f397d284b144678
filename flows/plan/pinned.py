"""What a plan says of a pinned model: since when, and how much its training data has grown since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from flows.config.pins import Pin
from flows.config.trained_on import TrainedOn, sizes
from storage.store import Artifact

Snapshots = Callable[[str], Artifact | None]
"""Today's snapshot of a dataset, by its name in the config; None where there is none (yet)."""


@dataclass(frozen=True)
class Growth:
    """A view that a model was trained on, then and now; sizes are None where they are not known."""

    view: str
    images: int | None
    boxes: int | None
    images_now: int | None
    boxes_now: int | None

    @classmethod
    def of(cls, then: TrainedOn, snapshot: Artifact | None) -> Growth:
        now = (None, None) if snapshot is None else sizes(snapshot.manifest, then.split)
        return cls(str(then), then.images, then.boxes, *now)

    def __str__(self) -> str:
        if self.images is None or self.boxes is None:
            return f"{self.view}: sizes are not recorded"
        then = f"{self.view} had {self.images:,} images with {self.boxes:,} boxes"
        if self.images_now is None or self.boxes_now is None:
            return f"{then}; today's counts are known after the ingest"
        if (self.images, self.boxes) == (self.images_now, self.boxes_now):
            return f"{then}, as today"
        more = f"{self.images_now - self.images:+,} images, {self.boxes_now - self.boxes:+,} boxes"
        return f"{then}; since then {more}"


@dataclass(frozen=True)
class PinnedModel:
    """A pin as it stands in a plan."""

    pin: Pin
    growth: tuple[Growth, ...]

    @classmethod
    def of(cls, pin: Pin, snapshots: Snapshots) -> PinnedModel:
        return cls(pin, tuple(Growth.of(then, snapshots(then.dataset)) for then in pin.trained_on))

    def __str__(self) -> str:
        """One line: which model, since when, trained on what, and what has been added."""
        pin = self.pin
        if pin.tag is not None:
            named = f"{pin.tag} is {pin.tagged}"
            named += "" if pin.tagged == pin.artifact else f", trained on {pin.artifact}"
        else:
            named = pin.artifact if pin.folder is None else f"the model in {pin.folder}"
        built = f", built {pin.created}" if pin.created else ""
        grown = "; ".join(map(str, self.growth)) or "its training data is not recorded"
        return f"pinned: {named}{built}; {grown}"

    def as_record(self) -> dict[str, Any]:
        """For --json and the run's record: a tag may move, so this says which artifact it meant."""
        return {
            "use": self.pin.given,
            "artifact": self.pin.artifact,
            "tagged": self.pin.tagged,
            "built": self.pin.created or None,
            "growth": [asdict(each) for each in self.growth],
        }
