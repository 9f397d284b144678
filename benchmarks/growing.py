"""A dataset that grows, and the stages of its config in processes of their own: for benchmarks and tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.drawing import photograph
from flows.config.loading import load_config
from flows.plan.states import Planned, resolve
from flows.run.making import make_in_process
from flows.stages.base import Stage
from flows.stages.building import build_stages
from personsearch_core.models.detector import Detector
from personsearch_core.models.weights import save_detector, weights_digest
from personsearch_core.recipes import DetectorModel
from storage.manifest import Identity
from storage.opening import open_store
from storage.store import Artifact, Store

DRAWN_IMAGES = 32
"""Pictures that are drawn; others are the same pixels in another file, which costs as much to read."""
PER_PERSON = 8
"""Images of each identity."""
PERSON = (80, 200)
"""Width and height of every box, at most, in pixels."""


@dataclass(frozen=True)
class GrowingScenes:
    """COCO files of drawn scenes under `root`: an image is the same however many there are."""

    root: Path
    width: int
    height: int
    people: int

    def write(self, images: Mapping[str, Sequence[int]]) -> None:
        """Have the images of these numbers in each split; files that are there stay untouched."""
        (self.root / "images").mkdir(parents=True, exist_ok=True)
        (self.root / "annotations").mkdir(exist_ok=True)
        for split, numbers in images.items():
            entries = [self._entries(split, number) for number in numbers]
            body = {
                "images": [image for image, _ in entries],
                "annotations": [box for _, boxes in entries for box in boxes],
                "categories": [{"id": 1, "name": "person"}],
            }
            (self.root / "annotations" / f"instances_{split}.json").write_text(json.dumps(body))

    def _entries(self, split: str, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        name = f"{split}{number:06d}.jpg"
        if not (self.root / "images" / name).exists():
            (self.root / "images" / name).write_bytes(self._picture(number, name))
        wide, high = min(PERSON[0], self.width // 2), min(PERSON[1], self.height // 2)
        generator = np.random.default_rng([number, len(split)])
        corners = generator.integers(0, (self.width - wide, self.height - high), (self.people, 2)).tolist()
        boxes = [
            {
                "id": f"{name}-{person}",
                "image_id": name,
                "category_id": 1,
                "bbox": [x, y, wide, high],
                "person_id": f"{split}{number // PER_PERSON}-{person}",
            }
            for person, (x, y) in enumerate(corners)
        ]
        return {"id": name, "file_name": name, "width": self.width, "height": self.height}, boxes

    def _picture(self, number: int, name: str) -> bytes:
        """A JPEG with the detail of photographs, and its name as a comment: no two files are equal."""
        drawn = self.root.with_name("drawn") / f"{number % DRAWN_IMAGES}.jpg"
        if not drawn.exists():
            drawn.parent.mkdir(exist_ok=True)
            generator = np.random.default_rng(number % DRAWN_IMAGES)
            photograph(generator, self.width, self.height).save(drawn, quality=90)
        plain, comment = drawn.read_bytes(), name.encode()
        return plain[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + plain[2:]


def write_config(path: Path, root: Path, model: DetectorModel, **changes: Any) -> Path:
    """A config of features of split `train` and detections of split `test`; `changes` replace sections."""
    settings = {
        "datasets": {
            "scenes": {
                "adapter": "coco",
                "root": str(root),
                "options": {"images": "images", "person_id": "person_id"},
                "queries": {"split": "test"},
            }
        },
        "detector": {
            "train": [{"dataset": "scenes", "split": "train"}],
            "model": model.model_dump(mode="json"),
            "training": {"steps": 1, "schedule": {"warmup_steps": 0}},
        },
        "reid": {"train": {"dataset": "scenes", "split": "train"}},
        "evaluation": {"test": {"dataset": "scenes", "split": "test"}, "protocol": "drawn"},
        "run": {"device": "cpu"},
    }
    path.write_text(yaml.safe_dump(settings | changes, sort_keys=False))
    return path


@dataclass(frozen=True)
class Timed:
    """A stage's artifact, and the seconds that its process took, its start included; 0 for a cached one."""

    artifact: Artifact
    seconds: float

    @property
    def taken(self) -> int:
        """Rows that were taken from an earlier artifact."""
        return int(self.artifact.manifest.made_by["rows"]["taken"])


Make = Callable[[Planned, Store, Mapping[str, Artifact]], Artifact]


def in_process(planned: Planned, store: Store, artifacts: Mapping[str, Artifact]) -> Artifact:
    """Make a stage as a run does: in a process of its own."""
    return make_in_process(planned, store, artifacts, on_progress=lambda *_, **__: None)


def make_stages(
    config: Path, store: Path, detector: Detector, kinds: Sequence[str], make: Make = in_process
) -> dict[str, Timed]:
    """Make the stages of these kinds and what they need; `detector` stands in for the one to be trained."""
    settings = load_config(config, (), store=str(store))
    opened = open_store(settings.store)
    artifacts: dict[str, Artifact] = {}
    made = {}
    for stage in build_stages(settings):
        if stage.kind not in ("ingest", "detector", *kinds):
            continue
        made[stage.kind] = _make(stage, opened, artifacts, detector, make)
        artifacts[stage.name] = made[stage.kind].artifact
    return made


def _make(
    stage: Stage, store: Store, artifacts: Mapping[str, Artifact], detector: Detector, make: Make
) -> Timed:
    planned = resolve(stage, store, artifacts, frozenset(), explain=False)
    if planned.artifact is not None:
        return Timed(planned.artifact, 0.0)
    assert planned.identity is not None
    if stage.kind == "detector":
        return Timed(put_detector(store, planned.identity, detector), 0.0)
    started = time.perf_counter()
    artifact = make(planned, store, artifacts)
    return Timed(artifact, time.perf_counter() - started)


def put_detector(store: Store, identity: Identity, detector: Detector) -> Artifact:
    """A detector as the artifact of a training."""
    with store.making(identity) as work:
        if work.made is not None:
            return work.made
        save_detector(work.path, detector)
        return work.commit(weights_digest(detector))
