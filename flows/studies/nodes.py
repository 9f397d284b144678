"""The stages of a study as it stands: each artifact once, however many members need it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data_catalog.errors import CatalogError
from flows.config.models import Config
from flows.plan.states import identity_of
from flows.stages.base import Stage
from flows.studies.loading import Loader
from flows.studies.members import Member
from storage.digests import digest_json
from storage.store import Artifact, Store


@dataclass
class Node:
    """One artifact that members need: the stage that makes it, and what it waits for.

    `number` says its place in the order in which nodes are found: inputs come first.
    """

    number: int
    stage: Stage
    config: Config
    """Of the first member that needs it."""
    store: Store
    inputs: Mapping[str, Node]
    """By input name, without repetitions of the same snapshot under several names."""
    artifact: Artifact | None = None
    unfinished: str | None = None
    """Where the work would resume, if it was begun."""
    problem: str | None = None
    """Why it cannot be built: a split or a protocol that is not there."""
    members: list[str] = field(default_factory=list)

    @property
    def waits_for(self) -> list[Node]:
        """Inputs that are not built yet."""
        return list({node.number: node for node in self.inputs.values() if node.artifact is None}.values())


@dataclass
class Nodes:
    """All nodes of some members."""

    loader: Loader
    nodes: list[Node] = field(default_factory=list)
    of_member: dict[str, dict[str, Node]] = field(default_factory=dict)
    """By member and stage name."""
    _known: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def of(cls, members: Iterable[Member], loader: Loader) -> Nodes:
        """Raises what `Loader.load` raises."""
        found = cls(loader)
        for member in members:
            found._add(member)
        return found

    @property
    def missing(self) -> list[Node]:
        return [node for node in self.nodes if node.artifact is None]

    def _add(self, member: Member) -> None:
        loaded = self.loader.load(member)
        nodes: dict[str, Node] = {}
        for stage in loaded.stages:
            inputs = {name: nodes[ref.stage] for name, ref in stage.inputs.items()}
            # Not its key, which is unknown as long as an input is not built.
            known = digest_json(
                {
                    "at": [str(loaded.store), stage.kind, stage.version],
                    "recipe": stage.recipe,
                    "fixed": dict(stage.fixed_inputs),
                    "inputs": {name: [node.number, _view(stage, name)] for name, node in inputs.items()},
                }
            )
            if known not in self._known:
                self._known[known] = self._new(stage, loaded.config, loaded.store, inputs)
            nodes[stage.name] = self._known[known]
            nodes[stage.name].members.append(member.name)
        self.of_member[member.name] = nodes

    def _new(self, stage: Stage, config: Config, store: Store, inputs: Mapping[str, Node]) -> Node:
        node = Node(len(self.nodes), stage, config, store, inputs)
        self.nodes.append(node)
        artifacts = {ref.stage: inputs[name].artifact for name, ref in stage.inputs.items()}
        there = {name: artifact for name, artifact in artifacts.items() if artifact is not None}
        if len(there) == len(artifacts) and stage.maker:
            try:
                identity = identity_of(stage, there, store)
            except CatalogError as error:
                node.problem = str(error)
                return node
            node.artifact = store.inspect(stage.kind, identity.key).artifact
            work = store.place.work_path_of(stage.kind, identity.key)
            if node.artifact is None and stage.resume_point and work.is_dir():
                node.unfinished = stage.resume_point(work)
        return node


def _view(stage: Stage, name: str) -> dict[str, Any] | None:
    view = stage.inputs[name].view
    return None if view is None else asdict(view)
