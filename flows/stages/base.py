"""What a stage is: a typed recipe and named inputs that lead to one artifact.

A stage is data, so that planning builds nothing. `maker` names the `Maker` in the stage's file as
"module:NAME". The stage's own process imports it, validates recipe, inputs and options by the models that the
maker declares, and does the work; only there is torch loaded.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, InstanceOf

from flows.config.models import Config
from flows.config.pins import Pin
from flows.config.sections import EvaluationSection, Processors, TrainingEntry, ViewRef
from flows.errors import Interrupted
from flows.plan.views import SnapshotView, ViewSpec
from storage.store import Artifact, Store
from storage.trust import Digested

if TYPE_CHECKING:
    from data_catalog.views import Use
    from flows.run.child import Reporter


@dataclass(frozen=True)
class InputRef:
    """An input of a stage: the artifact of another stage, or a view of a snapshot and its dataset's root."""

    stage: str
    view: ViewSpec | None = None
    root: Path | None = None


@dataclass(frozen=True)
class Stage:
    """One node of a plan.

    `recipe` and the digests of the inputs make the key; `options` (roots, workers) and `processors` do not.
    Recipe and options are JSON of the models that the maker declares.
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
    alone: bool = False
    """Whether nothing else of a study runs meanwhile: it measures time, or trains with other machines."""
    resume_point: Callable[[Path], str | None] | None = None
    """Says, for the plan, where unfinished work would resume; looks at file names only."""
    bytes_needed: Callable[[Mapping[str, Artifact], Store], int | None] | None = None
    """How much the artifact will take on the disk, for the plan, from the artifacts made so far by their
    stages' names and their store; None while that cannot be known."""
    in_place: tuple[str, ...] = ()
    """Inputs that are not brought to this machine first: the maker reads them where they are."""
    pin: Pin | None = None
    """The trained model that stands in for this stage, which is never built again."""


@dataclass(frozen=True)
class Made:
    """What a maker returns: the digest of the declared payload, and metrics for the manifest."""

    content_digest: str
    metrics: dict[str, Any]
    scratch: tuple[str, ...] = ()
    """Files and folders of the work area that only a resume needs: no part of the artifact, and removed once
    it is committed."""
    file_digests: Mapping[str, Digested] = field(default_factory=dict)
    """Of files that were digested as they were written, by their names in the work area."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """Provenance besides that of the code, the machine and the views."""


ArtifactInput = InstanceOf[Artifact]
ViewInput = InstanceOf[SnapshotView]


class Inputs(BaseModel):
    """Base of what makers declare as their inputs: a field per name, an ArtifactInput or a ViewInput.

    A field that is a dict takes all inputs whose names begin with its own, by the rest of their names:
    `train` takes `train0` and `train1` as "0" and "1".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def of(cls, named: Mapping[str, Artifact | SnapshotView]) -> Self:
        """From all inputs of a stage by their names. Raises ValidationError if any is missing or unknown."""
        groups = [name for name, each in cls.model_fields.items() if get_origin(each.annotation) is dict]
        fields: dict[str, Any] = {}
        for name, value in named.items():
            group = next((one for one in groups if name.startswith(one)), None)
            if group is None:
                fields[name] = value
            else:
                fields.setdefault(group, {})[name.removeprefix(group)] = value
        return cls.model_validate(fields)

    def named(self) -> dict[str, Artifact | SnapshotView]:
        """All inputs by the names that the stage has for them."""
        found: dict[str, Artifact | SnapshotView] = {}
        for name, value in self:
            if isinstance(value, dict):
                found |= {f"{name}{rest}": each for rest, each in value.items()}
            elif value is not None:
                found[name] = value
        return found

    def artifacts(self) -> dict[str, Artifact]:
        """All inputs by their names; for a view, its snapshot."""
        return {
            name: value.snapshot if isinstance(value, SnapshotView) else value
            for name, value in self.named().items()
        }


class Nothing(BaseModel):
    """The options of a stage that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


RecipeT = TypeVar("RecipeT", bound=BaseModel)
InputsT = TypeVar("InputsT", bound=Inputs)
OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True)
class StageContext(Generic[RecipeT, InputsT, OptionsT]):
    """What a maker works with."""

    recipe: RecipeT
    inputs: InputsT
    options: OptionsT
    work: Path
    """The work area: files written here become the artifact; it still has what an earlier attempt left."""
    reporter: Reporter

    name: str = ""
    """`kind/key` of the artifact that is being made; empty for work outside a store."""
    store: Store | None = None
    """Where it is made; None for work outside a store."""
    processors: Processors = field(default_factory=Processors)
    again: bool = False
    """Whether a rebuild was asked for: nothing is taken from other artifacts."""

    def progress(self, done: int, total: int, **metrics: float) -> None:
        self.reporter.progress(done, total, **metrics)

    def reached(self, done: int, total: int) -> None:
        """Report progress at a point where the work may stop, since what is done is in the work area.

        Raises Interrupted when the stage was asked to stop.
        """
        self.progress(done, total)
        if self.should_stop() and done < total:
            raise Interrupted(f"stopped at {done} of {total}; run the same command again to resume")

    def attributes(self) -> dict[str, Any]:
        """What a feature store says of what made it."""
        artifacts = {name: made.name for name, made in self.inputs.artifacts().items()}
        views = {
            name: f"{value.spec.dataset}/{value.spec.split}"
            for name, value in self.inputs.named().items()
            if isinstance(value, SnapshotView)
        }
        recipe = self.recipe.model_dump(mode="json")
        return {"artifact": self.name, "recipe": recipe, "inputs": artifacts, "views": views}

    def should_stop(self) -> bool:
        return self.reporter.should_stop()


@dataclass(frozen=True)
class Maker(Generic[RecipeT, InputsT, OptionsT]):
    """How the stages of one kind are built: what they take, by its models, and the function that does it."""

    recipe: type[RecipeT]
    inputs: type[InputsT]
    options: type[OptionsT]
    make: Callable[[StageContext[RecipeT, InputsT, OptionsT]], Made]

    def context(
        self,
        recipe: Mapping[str, Any],
        inputs: Mapping[str, Artifact | SnapshotView],
        options: Mapping[str, Any],
        *,
        work: Path,
        reporter: Reporter,
        name: str = "",
        store: Store | None = None,
        processors: Processors | None = None,
        again: bool = False,
    ) -> StageContext[RecipeT, InputsT, OptionsT]:
        """A stage's data, validated; see StageContext."""
        return StageContext(
            recipe=self.recipe.model_validate(recipe),
            inputs=self.inputs.of(inputs),
            options=self.options.model_validate(options),
            work=work,
            reporter=reporter,
            name=name,
            store=store,
            processors=processors or Processors(),
            again=again,
        )


def load_maker(name: str) -> Maker[Any, Any, Any]:
    """The maker that a stage names."""
    module, _, attribute = name.partition(":")
    found: Maker[Any, Any, Any] = getattr(importlib.import_module(module), attribute)
    return found


def ingest_name(dataset: str) -> str:
    return f"ingest:{dataset}"


def view_input(config: Config, ref: ViewRef, use: Use, protocols: tuple[str, ...] = ()) -> InputRef:
    """A view that a config names, as an input."""
    spec = ViewSpec(ref.dataset, ref.split, use, ref.min_height, protocols)
    return InputRef(ingest_name(ref.dataset), spec, config.datasets[ref.dataset].root)


def processors_of(config: Config, *, several: bool = False) -> Processors:
    """The processors that `run` gives a stage: one device, unless the stage can use several."""
    run = config.run
    return Processors(device=run.device, devices=run.devices if several else 1, threads=run.threads)


def feature_names(config: Config) -> dict[str, TrainingEntry]:
    """What tells the stages of each re-ID dataset apart: '' for the only one, ':dataset' for several.

    Their order is that of the rows that the branch is trained on.
    """
    entries = config.reid_section.entries
    return {f":{entry.dataset}" if len(entries) > 1 else "": entry for entry in entries}


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
