"""Settings between two results as configs for the ordinary machinery, over snapshots of the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_catalog.hash_cache import HashCache
from data_catalog.snapshot import Snapshot
from flows.compare.factors import Settings
from flows.compare.history import REID, TRAIN, VALIDATION, History
from flows.config.loading import with_pins
from flows.config.models import Config
from flows.config.problems import explain_problems
from flows.errors import ConfigError, StageError
from flows.plan.catalog import StoreSnapshots
from flows.plan.states import make_plan, select
from flows.stages.base import Stage, ingest_name
from flows.stages.building import build_stages
from flows.studies.loading import Loaded, Loader
from flows.studies.members import Member
from flows.studies.nodes import Node
from storage.opening import open_store
from storage.store import Store

UNTIL = "evaluation"


@dataclass
class Replay(Loader):
    """Loads members whose configs are settings between A and B, of some tests, by the members' names.

    `sides` say where images are, which only matters where something has to be computed from them.
    """

    settings: dict[str, Settings] = field(default_factory=dict)
    tests: tuple[str, ...] = ()
    sides: tuple[History, ...] = ()

    def load(self, member: Member) -> Loaded:
        """Raises ConfigError for settings that no config may have."""
        if member.name not in self._loaded:
            found = self.settings[member.name]
            config = self._config(found)
            stages, _ = select(
                build_stages(config, lambda _, dataset: self._snapshot_stage(found, dataset)),
                until=UNTIL,
            )
            self._loaded[member.name] = Loaded(config, stages, self._opened)
        return self._loaded[member.name]

    def differing_models(self, member: Member, history: History) -> list[str]:
        """The stages of a side's models that its settings, written as a config, do not lead to again."""
        loaded = self.load(member)
        plan = {each.stage.name: each for each in make_plan(loaded.stages, self._opened)}
        wrong = []
        for name, made in history.stages.items():
            if made.kind not in ("detector", "features", "reid"):
                continue
            planned = plan.get(name) or plan.get(made.kind)
            identity = None if planned is None else planned.identity
            same_inputs = identity is not None and identity.inputs == made.identity.inputs
            same_recipe = planned is not None and planned.stage.recipe == made.identity.recipe
            # A model that has to be trained again first leaves the inputs of later stages unknown.
            if not same_recipe or (identity is not None and not same_inputs):
                wrong.append(name)
        return wrong

    def require_images(self, nodes: Iterable[Node]) -> None:
        """Raise StageError if a stage that is to be built needs images that are not as they were.

        Every image of its view must be at its dataset's root, with the bytes that the snapshot records.
        """
        asked: dict[tuple[str, str, Path], str] = {}
        for node in nodes:
            for name, ref in node.stage.inputs.items():
                made = node.inputs[name].artifact
                if ref.view is None or ref.view.use == "truth" or ref.root is None or made is None:
                    continue
                asked.setdefault((made.name, ref.view.split, ref.root), node.stage.name)
        for (snapshot, split, root), stage in asked.items():
            problem = self._missing_images(snapshot, split, root)
            if problem is not None:
                raise StageError(
                    f"{stage} has to be built, and for that the images of {snapshot} ({split}) are needed as "
                    f"they were: {problem}. Bring them back, or compare without --attribute"
                )

    def _missing_images(self, name: str, split: str, root: Path) -> str | None:
        images = self._read(name).table("images", ["rel_path", "sha256", "split"]).to_pylist()
        wanted = {each["rel_path"]: each["sha256"] for each in images if each["split"] == split}
        if not root.is_absolute():
            return "where they lie is not known on this machine"
        gone = [path for path in wanted if not (root / path).is_file()]
        if gone:
            return f"{len(gone)} of {len(wanted)} are not in {root}, {gone[0]} among them"
        cache = HashCache(self._opened.root / ".cache" / "hashes.sqlite")
        found = cache.digests(root, list(wanted))
        changed = [path for path, digest in wanted.items() if found[path] != digest]
        if changed:
            return f"{len(changed)} of {len(wanted)} have changed in {root}, {changed[0]} among them"
        return None

    def _config(self, settings: Settings) -> Config:
        """The settings as a config; raises ConfigError if no config may have them."""
        raw: dict[str, Any] = {
            "store": str(self._opened),
            "datasets": {name: self._source(settings, name) for name in settings.snapshots},
            **_sections(settings, self.tests),
            "run": self._run,
        }
        try:
            return Config.model_validate(with_pins(raw, Path("diff")))
        except ValidationError as error:
            raise ConfigError("; ".join(map(str, explain_problems(error, Config)))) from error

    @cached_property
    def _opened(self) -> Store:
        assert self.store is not None, "both sides are in one store, which is given"
        return open_store(self.store)

    @cached_property
    def _configs(self) -> list[Config]:
        """Those of both sides that can be read, B's first."""
        found = (each.side.loaded_config(self._opened) for each in reversed(self.sides))
        return [config for config in found if config is not None]

    @cached_property
    def _run(self) -> dict[str, Any]:
        """How to do the work, as the configs say; who is told of a run is not told of this."""
        options = self._configs[0].run.model_dump() if self._configs else {}
        return {**options, "notify": None, "trackers": (), "check_images": False}

    def _source(self, settings: Settings, dataset: str) -> dict[str, Any]:
        snapshot = settings.snapshots[dataset]
        recipe = self._opened.manifest_of(*snapshot.split("/")).identity.recipe
        root = str(self._root(dataset, snapshot))
        return {"adapter": recipe["adapter"], "root": root, "allow_empty": True}

    def _root(self, dataset: str, snapshot: str) -> Path:
        """Where the images of a snapshot are: the first place that is known and has all of them."""
        places = [config.datasets[dataset].root for config in self._configs if dataset in config.datasets]
        if remembered := StoreSnapshots(self._opened).root(dataset):
            places.append(remembered)
        if len(set(places)) > 1:
            paths = self._read(snapshot).table("images", ["rel_path"])["rel_path"].to_pylist()
            places.sort(key=lambda root: sum(not (root / path).is_file() for path in paths))
        return places[0].absolute() if places else Path(f"unknown root of {dataset}")

    def _snapshot_stage(self, settings: Settings, dataset: str) -> Stage:
        """The ingest whose artifact is there, whatever the root holds now."""
        kind, _, key = settings.snapshots[dataset].partition("/")
        identity = self._opened.manifest_of(kind, key).identity
        return Stage(
            name=ingest_name(dataset),
            kind=kind,
            version=identity.version,
            recipe=identity.recipe,
            maker="flows.stages.ingest:MAKER",
            fixed_inputs=identity.inputs,
        )

    def _read(self, name: str) -> Snapshot:
        return Snapshot(self._opened.local_path(*name.split("/")))


def _sections(settings: Settings, tests: Sequence[str]) -> dict[str, Any]:
    """Recipes and training views as the sections of a config."""
    found = {name: value for name, value in settings.recipes.items() if name != "evaluation"}
    evaluation = settings.recipes.get("evaluation", {})
    found["evaluation"] = [evaluation[name] for name in tests if name in evaluation]
    if settings.model is not None:
        made = settings.model.stages
        found["detector"] = {"use": f"detector/{made['detector'].key}"}
        if "reid" in made:
            found["reid"] = {"use": f"reid/{made['reid'].key}"}
        return found
    views: dict[str, list[dict[str, Any]]] = {TRAIN: [], VALIDATION: [], REID: []}
    for entry in settings.entries:
        views[entry.place].append({"dataset": entry.dataset, **entry.fields})
    detector = {**found["detector"], "train": views[TRAIN], "validation": views[VALIDATION]}
    if detector.get("joint"):
        learnt = dict.fromkeys(entry.dataset for entry in settings.entries if entry.joint)
        detector["joint"] = {**detector["joint"], "datasets": [*learnt]}
    found["detector"] = detector
    if "reid" in found:
        found["reid"] = {**found["reid"], "train": views[REID]}
    return found
