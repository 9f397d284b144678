"""The plan of a config: its stages in order, and for each whether it is cached, resumes or runs, and why.

No Prefect and no torch: a plan with nothing to do costs little more than reading a few manifests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from data_catalog.suggestions import did_you_mean
from flows.config.models import Config
from flows.config.pins import Pin
from flows.errors import ConfigError, StageError
from flows.plan.changes import changed_fields
from flows.plan.pinned import PinnedModel
from flows.plan.views import view_digest
from flows.provenance import chosen_threads, source_digest
from flows.stages.base import Stage, ingest_name
from flows.wording import counted
from storage.manifest import Identity, Manifest
from storage.space import require_free_space
from storage.store import Artifact, Store

State = Literal["cached", "resumes", "runs"]
_OF_THREADS = frozenset({"detector", "detections"})
"""Kinds whose last bits depend on the number of CPU threads; those of features and of a branch do not."""


@dataclass(frozen=True)
class Planned:
    """One stage as it stands: `identity` is None while an input is still to be made."""

    stage: Stage
    state: State
    reason: str
    identity: Identity | None = None
    artifact: Artifact | None = None
    bytes_needed: int | None = None
    """What building it will add to the disk, if that is known beforehand."""
    pinned: PinnedModel | None = None
    """The trained model that stands in for the stage."""

    @property
    def known(self) -> Identity:
        """The identity of a stage whose inputs are there. Raises ValueError where they are not."""
        if self.identity is None:
            raise ValueError(f"stage {self.stage.name} has inputs that are not built yet")
        return self.identity

    def as_record(self) -> dict[str, Any]:
        """The stage as data, for --json and for the run's record."""
        made = self.artifact
        return {
            "stage": self.stage.name,
            "state": self.state,
            "reason": self.reason,
            "key": self.identity.key if self.identity else None,
            "path": str(made.path) if made else None,
            "seconds": made.manifest.seconds if made else None,
            "bytes_needed": self.bytes_needed,
            **({} if self.pinned is None else {"pinned": self.pinned.as_record()}),
        }


def select(
    stages: Sequence[Stage],
    *,
    force: Iterable[str] = (),
    start_from: str | None = None,
    until: str | None = None,
) -> tuple[list[Stage], frozenset[str]]:
    """The stages up to `until`, and the names of those to be rebuilt even if they are cached.

    `force`: stages to rebuild; from `start_from` on all are rebuilt.
    A kind stands for all its stages: `ingest` for `ingest:prw`. Raises ConfigError for any other name.
    """
    chosen = list(stages)
    if until is not None:
        ends = _named(stages, until)
        chosen = [stage for stage in stages if stage.name in _with_inputs(stages, ends)]
    again = {name for wanted in force for name in _named(stages, wanted)}
    if start_from is not None:
        first = _named(stages, start_from)
        if not first & {stage.name for stage in chosen}:
            raise ConfigError(
                f"--from {start_from} starts after --until {until} ends: give an earlier "
                "stage to --from, or a later one to --until"
            )
        again |= _with_followers(stages, first)
    for stage in stages:
        if stage.pin is not None and stage.name in again:
            raise ConfigError(
                f"{stage.name} is pinned ({stage.name}.use: {stage.pin.given}) and is not built again: name "
                f"a later stage, or remove {stage.name}.use to train"
            )
    return chosen, frozenset(again)


def make_plan(stages: Sequence[Stage], store: Store, again: frozenset[str] = frozenset()) -> list[Planned]:
    """The state of every stage, in order; nothing is built, moved or, except for snapshots, fetched."""
    artifacts: dict[str, Artifact] = {}
    plan = []
    for stage in stages:
        planned = resolve(stage, store, artifacts, again)
        if planned.artifact is not None:
            artifacts[stage.name] = planned.artifact
        plan.append(replace(planned, bytes_needed=_bytes_needed(planned, store, artifacts)))
    return plan


def require_space(plan: Iterable[Planned], store: Store) -> None:
    """Raise StorageError when the store's disk cannot hold what the plan's stages are known to need."""
    for planned in plan:
        if planned.bytes_needed is not None:
            require_free_space(store.root, planned.bytes_needed, what=planned.stage.name)


def require_synchronised_norms(config: Config, plan: Iterable[Planned]) -> None:
    """Raise ConfigError when a detector with batch norms is to train on the CPU in several processes.

    The training says so itself, but only once the datasets are read; with `run.device: auto` it alone knows
    what it computes on.
    """
    if config.run.device != "cpu" or config.detector.model.norm != "batch":
        return
    for planned in plan:
        processors = planned.stage.processors
        if planned.stage.kind != "detector" or planned.state == "cached" or processors is None:
            continue
        if config.run.nodes * processors.devices > 1:
            raise ConfigError(
                "detector.model.norm: batch cannot be synchronised between processes on a CPU: use group or "
                "frozen_batch, or set run.nodes and run.devices to 1"
            )


def resolve(
    stage: Stage,
    store: Store,
    artifacts: Mapping[str, Artifact],
    again: frozenset[str],
    *,
    explain: bool = True,
) -> Planned:
    """The state of one stage, given the artifacts of the stages before it.

    With `explain`, a stage that runs is compared with the store's artifacts of its kind, to say why.
    """
    missing = [ref.stage for ref in stage.inputs.values() if ref.stage not in artifacts]
    if missing:
        # Report a missing split or protocol now, rather than after the training before it.
        for ref in stage.inputs.values():
            if ref.view is not None and ref.stage in artifacts:
                view_digest(artifacts[ref.stage], ref.view, store)
        return Planned(stage, "runs", f"{missing[0]} must be built first")
    identity = identity_of(stage, artifacts, store)
    if stage.pin is not None:
        return _resolve_pinned(stage, stage.pin, identity, store, artifacts)
    if stage.name in again:
        return Planned(stage, "runs", "a rebuild was requested", identity)
    found = store.inspect(stage.kind, identity.key)
    if found.artifact is not None:
        return Planned(
            stage, "cached", _provenance_note(stage, found.artifact.manifest), identity, found.artifact
        )
    holder = store.place.holder(stage.kind, identity.key)
    if holder is not None:
        return Planned(stage, "runs", f"process {holder} is building it now", identity)
    work = store.place.work_path_of(stage.kind, identity.key)
    point = stage.resume_point(work) if stage.resume_point and work.is_dir() else None
    if point is not None:
        return Planned(stage, "resumes", f"resumes at {point}", identity)
    if found.problem is not None:
        why = f"its artifact is damaged: {found.problem}"
    else:
        why = _why_new(identity, store) if explain else "not in this store"
    return Planned(stage, "runs", why, identity)


def _resolve_pinned(
    stage: Stage, pin: Pin, identity: Identity, store: Store, artifacts: Mapping[str, Artifact]
) -> Planned:
    """A pinned model is there, or is imported; it is never trained."""
    model = PinnedModel.of(pin, lambda dataset: artifacts.get(ingest_name(dataset)))
    found = store.inspect(stage.kind, identity.key)
    if found.artifact is not None:
        return Planned(stage, "cached", str(model), identity, found.artifact, pinned=model)
    if pin.folder is not None:
        return Planned(stage, "runs", f"{model}; will be imported", identity, pinned=model)
    why = "is gone" if found.problem is None else f"is damaged: {found.problem}"
    raise StageError(f"{stage.name}.use: {pin.artifact} of {store} {why}; pull it again, or take another")


def identity_of(stage: Stage, artifacts: Mapping[str, Artifact], store: Store) -> Identity:
    """What a stage's artifact is known by, from the artifacts of its inputs by their stages' names.

    Raises CatalogError for a split or a protocol that is not there.
    """
    inputs = _input_digests(stage, artifacts, store)
    return Identity(kind=stage.kind, version=stage.version, recipe=stage.recipe, inputs=inputs)


def _bytes_needed(planned: Planned, store: Store, artifacts: Mapping[str, Artifact]) -> int | None:
    stage = planned.stage
    if planned.state == "cached" or stage.bytes_needed is None:
        return None
    whole = stage.bytes_needed(artifacts, store)
    if whole is None or planned.identity is None:
        return whole
    work = store.place.work_path_of(stage.kind, planned.identity.key)
    return max(0, whole - sum(file.stat().st_size for file in work.rglob("*") if file.is_file()))


def _input_digests(stage: Stage, artifacts: Mapping[str, Artifact], store: Store) -> dict[str, str]:
    digests = dict(stage.fixed_inputs)
    for name, ref in stage.inputs.items():
        artifact = artifacts[ref.stage]
        digests[name] = (
            artifact.content_digest if ref.view is None else view_digest(artifact, ref.view, store)
        )
    return digests


def _provenance_note(stage: Stage, manifest: Manifest) -> str:
    note = f"built {manifest.created}"
    if manifest.made_by.get("source") not in (None, source_digest()):
        note += " by another version of the code"
    return note + _threads_note(stage, manifest)


def _threads_note(stage: Stage, manifest: Manifest) -> str:
    """That a rebuild might not give the same bytes, since the stage would compute with other CPU threads."""
    if stage.kind not in _OF_THREADS or stage.processors is None or manifest.made_by.get("device") != "cpu":
        return ""
    then = manifest.made_by.get("threads") or manifest.made_by.get("cpus")
    now = chosen_threads(stage.processors.threads)
    return "" if then in (None, now) else f" with {counted(int(then), 'CPU thread')}, not {now} as now"


def _why_new(identity: Identity, store: Store) -> str:
    """How this stage differs from the most similar artifact of its kind, or the newest of several.

    Only what this machine remembers as newest is looked at: a store of millions does not hold up a plan.
    """
    known = (artifact.manifest.identity for artifact in store.newest_artifacts(identity.kind))
    # A snapshot of another dataset tells nothing about this one.
    related = [old for old in known if old.recipe.get("dataset") == identity.recipe.get("dataset")]
    each = [list(_differences(old, identity)) for old in related]
    if not each:
        return "not built in this store yet"
    differences = min(each, key=len)
    shown = "; ".join(differences[:3]) + ("; ..." if len(differences) > 3 else "")
    return f"new: {shown}" if shown else "its artifact is gone"


def _differences(old: Identity, new: Identity) -> Iterator[str]:
    if old.version != new.version:
        yield f"stage version {old.version} -> {new.version}"
    for name in sorted(old.inputs.keys() | new.inputs.keys()):
        if old.inputs.get(name) != new.inputs.get(name):
            yield f"other {name}"
    yield from map(str, changed_fields(old.recipe, new.recipe))


def _named(stages: Iterable[Stage], wanted: str) -> set[str]:
    found = {stage.name for stage in stages if wanted in (stage.name, stage.kind)}
    if not found:
        near = did_you_mean(wanted, {name for stage in stages for name in (stage.name, stage.kind)})
        if "," in wanted:
            near = "; give one stage per option, and repeat the option"
        known = f"; this config has {', '.join(stage.name for stage in stages)}"
        raise ConfigError(f"there is no stage {wanted!r}{near or known}")
    return found


def _with_inputs(stages: Sequence[Stage], names: set[str]) -> set[str]:
    wanted = set(names)
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted |= {ref.stage for ref in stage.inputs.values()}
    return wanted


def _with_followers(stages: Sequence[Stage], names: set[str]) -> set[str]:
    reached = set(names)
    for stage in stages:
        if any(ref.stage in reached for ref in stage.inputs.values()):
            reached.add(stage.name)
    return reached
