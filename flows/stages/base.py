"""What a stage is: a typed recipe and named inputs that lead to one artifact.

A stage is data, so that a plan can be made without making anything. `maker` names the function that does the
work, "module:function"; it is imported in the stage's own process, and only there is torch loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flows.config.models import Config, EvaluationSection, Processors
from flows.errors import Interrupted
from flows.plan.views import ViewSpec
from flows.run.child import Reporter
from storage.store import Artifact, Store
from storage.trust import Digested

Kind = Literal["ingest", "detector", "features", "reid", "detections", "gallery", "evaluation", "report"]
"""What stages are called that make the same from other datasets; in the order in which they are made."""


@dataclass(frozen=True)
class InputRef:
    """An input of a stage: the artifact of another stage, or a view of a snapshot."""

    stage: str
    view: ViewSpec | None = None


@dataclass(frozen=True)
class Stage:
    """One node of a plan.

    `recipe` and the digests of the inputs make the key; `options` (roots, workers) and `processors` do not.
    Recipe and options are JSON, of models that stand in the stage's file: its maker validates them.
    `fixed_inputs` are digests known beforehand, such as the fingerprint of a dataset's root.
    """

    name: str
    kind: str
    version: int
    recipe: dict[str, Any]
    maker: str
    inputs: Mapping[str, InputRef] = field(default_factory=dict)
    fixed_inputs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    processors: Processors | None = None
    """None for a stage without torch."""
    resume_point: Callable[[Path], str | None] | None = None
    """Says where a work area's unfinished work would go on, for the plan; looks at file names only."""
    bytes_needed: Callable[[Mapping[str, Artifact]], int | None] | None = None
    """How much the artifact will take on the disk, for the plan, from the artifacts made so far by their
    stages' names; None while that cannot be known."""


@dataclass(frozen=True)
class Made:
    """What a maker returns: the digest of the declared payload, and figures worth keeping in the manifest."""

    content_digest: str
    metrics: dict[str, Any]
    scratch: tuple[str, ...] = ()
    """Files and folders of the work area that only a resume needs: no part of the artifact, and removed once
    it is committed."""
    file_digests: Mapping[str, Digested] = field(default_factory=dict)
    """Of files that were digested as they were written, by their names in the work area."""


@dataclass(frozen=True)
class StageContext:
    """What a maker works with."""

    recipe: dict[str, Any]
    work: Path
    """The work area: files written here become the artifact; what an earlier try left is here too."""
    artifacts: Mapping[str, Artifact]
    """By input name; for an input that is a view, its snapshot."""
    views: Mapping[str, ViewSpec]
    options: Mapping[str, Any]
    reporter: Reporter

    name: str = ""
    """`kind/key` of the artifact that is being made; empty for work outside a store."""
    store: Store | None = None
    """Where it is made; None for work outside a store."""
    processors: Processors = field(default_factory=Processors)

    def progress(self, done: int, total: int, **metrics: float) -> None:
        self.reporter.progress(done, total, **metrics)

    def reached(self, done: int, total: int) -> None:
        """Progress at a point where the work may stop: what is done lies in the work area, or is on its way.

        Raises Interrupted when the stage was asked to stop.
        """
        self.progress(done, total)
        if self.should_stop() and done < total:
            raise Interrupted(f"stopped at {done} of {total}; the same command goes on from what is kept")

    def attributes(self) -> dict[str, Any]:
        """What a feature store says of what made it."""
        inputs = {name: f"{artifact.kind}/{artifact.key}" for name, artifact in self.artifacts.items()}
        views = {name: f"{view.dataset}/{view.split}" for name, view in self.views.items()}
        return {"artifact": self.name, "recipe": self.recipe, "inputs": inputs, "views": views}

    def should_stop(self) -> bool:
        return self.reporter.should_stop()


def ingest_name(dataset: str) -> str:
    return f"ingest:{dataset}"


def processors_of(config: Config, *, several: bool = False) -> Processors:
    """What `run` lets a stage compute on: one device, unless it is made for several."""
    run = config.run
    return Processors(device=run.device, devices=run.devices if several else 1, threads=run.threads)


def test_names(config: Config) -> dict[str, EvaluationSection]:
    """What tells the stages of each test apart: '' for the only one, ':dataset' for several."""
    if len(config.evaluation) == 1:
        return {"": config.evaluation[0]}
    return {f":{entry.test.dataset}": entry for entry in config.evaluation}


def last_checkpoint(work: Path) -> str | None:
    """The step of the newest checkpoint of a training, such as 'step 120'."""
    steps = [int(match[1]) for path in work.rglob("*.pt") if (match := re.search(r"(\d+)$", path.stem))]
    return f"step {max(steps)}" if steps else None


def last_shard(work: Path) -> str | None:
    """How many shards of a feature store exist, such as '12 shards'."""
    shards = sum(path.name.isdigit() for path in (work / "features").rglob("*") if path.is_file())
    return f"{shards} shards" if shards else None


def last_block(work: Path) -> str | None:
    """How many blocks of images are done, such as '3 blocks of images'."""
    blocks = len(list(work.glob("blocks/*.done")))
    return f"{blocks} blocks of images" if blocks else None
