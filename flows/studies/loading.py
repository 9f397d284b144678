"""The configs and stages of many members; what they share is read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flows.config.loading import load_config
from flows.config.models import Config
from flows.errors import ConfigError
from flows.plan.states import select
from flows.stages import ingest, speed
from flows.stages.base import Stage, ingest_name
from flows.stages.building import build_stages
from flows.studies.members import Member, Study
from storage.opening import open_store
from storage.store import Store


@dataclass(frozen=True)
class Loaded:
    """A member's config, its stages up to its last, and its store."""

    config: Config
    stages: list[Stage]
    store: Store


@dataclass
class Loader:
    """Loads members over one store, the configs' own by default.

    With `absent`, a dataset whose root is not there has a stage all the same, for plans, and `absent`
    collects what is missing, by root.
    """

    store: str | None = None
    absent: dict[Path, str] | None = None
    _loaded: dict[str, Loaded] = field(default_factory=dict)
    _stores: dict[str, Store] = field(default_factory=dict)
    _ingests: dict[tuple[str, str, str], Stage] = field(default_factory=dict)

    def load(self, member: Member) -> Loaded:
        """Raises ConfigError for a config that is wrong, and what `ingest.stage` raises."""
        if member.name not in self._loaded:
            try:
                config = load_config(member.config, member.overrides, store=self.store)
            except ConfigError as error:
                # Its changes are written in the study's file, below `set`.
                said = str(error).replace("--set ", "set.")
                raise ConfigError(f"member {member.name!r}: {said}") from error
            if config.store not in self._stores:
                self._stores[config.store] = open_store(config.store)
            if member.until == "speed":  # needs no dataset, so none is looked at
                stages = [speed.stage(config)]
            else:
                stages, _ = select(build_stages(config, self._ingest_stage), until=member.until)
            self._loaded[member.name] = Loaded(config, stages, self._stores[config.store])
        return self._loaded[member.name]

    def store_of(self, study: Study) -> Store:
        """The store of a study's first member, where its tables are kept, too."""
        return self.load(next(iter(study.members.values()))).store

    def _ingest_stage(self, config: Config, dataset: str) -> Stage:
        known = (dataset, config.store, config.datasets[dataset].model_dump_json())
        if known not in self._ingests:
            self._ingests[known] = self._new_ingest_stage(config, dataset)
        return self._ingests[known]

    def _new_ingest_stage(self, config: Config, dataset: str) -> Stage:
        try:
            return ingest.stage(config, dataset)
        except ConfigError as error:
            if self.absent is None or config.datasets[dataset].root.is_dir():
                raise
            self.absent[config.datasets[dataset].root] = str(error)
            return Stage(
                name=ingest_name(dataset),
                kind="ingest",
                version=ingest.VERSION,
                recipe={"dataset": dataset, "adapter": config.datasets[dataset].adapter},
                maker="",
            )
