"""Which artifacts a config reaches, and which artifacts a running pipeline is about to use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flows.config import load_config
from flows.plan import make_plan
from flows.records import is_running, read_records
from flows.stages.building import build_stages
from storage.artifacts import LocalStore


@dataclass
class Reach:
    """`names` as `kind/key`; `unmade` are stages whose followers cannot be named before they are made."""

    names: set[str] = field(default_factory=set)
    unmade: list[str] = field(default_factory=list)


def reached_by(configs: Iterable[Path], store: LocalStore) -> Reach:
    """What the configs' plans name in `store`, made or not yet; nothing is made."""
    reach = Reach()
    for path in configs:
        for planned in make_plan(build_stages(load_config(path, store=str(store))), store):
            if planned.identity is not None:
                reach.names.add(f"{planned.stage.kind}/{planned.identity.key}")
            if planned.artifact is None:
                reach.unmade.append(planned.stage.name)
    return reach


def in_use(store: LocalStore) -> set[str]:
    """What the runs that go on now have used or made so far, as `kind/key`."""
    return {
        f"{stage['stage'].partition(':')[0]}/{stage['key']}"
        for record in read_records(store.root)
        if is_running(record)
        for stage in record.stages
        if stage["key"] is not None
    }
