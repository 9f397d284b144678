"""Which artifacts a config reaches, and which artifacts a running pipeline is about to use."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flows.config.models import load_config
from flows.plan.states import make_plan
from flows.run.records import is_running, read_records, records_folder
from flows.stages.building import build_stages
from storage.store import Store

SETTLED_NS = 50_000_000


@dataclass
class Reach:
    """`names` as `kind/key`; `unmade` are stages whose followers cannot be named before they are made."""

    names: set[str] = field(default_factory=set)
    unmade: list[str] = field(default_factory=list)


def reached_by(configs: Iterable[Path], store: Store) -> Reach:
    """What the configs' plans name in `store`, made or not yet; nothing is made."""
    reach = Reach()
    for path in configs:
        for planned in make_plan(build_stages(load_config(path, store=str(store))), store):
            if planned.identity is not None:
                reach.names.add(f"{planned.stage.kind}/{planned.identity.key}")
            if planned.artifact is None:
                reach.unmade.append(planned.stage.name)
    return reach


def in_use(store: Store) -> frozenset[str]:
    """What the runs that go on now have used or made so far, as `kind/key`."""
    return frozenset(
        f"{stage['stage'].partition(':')[0]}/{stage['key']}"
        for record in read_records(store.root)
        if is_running(record)
        for stage in record.stages
        if stage["key"] is not None
    )


class InUse:
    """`in_use` for whoever asks again and again: records are read only when one was written since.

    Each is written by a rename, which sets the time of the folder that they lie in.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read_at: int | None = None
        self._names: frozenset[str] = frozenset()

    def __call__(self) -> frozenset[str]:
        try:
            changed = records_folder(self._store.root).stat().st_mtime_ns
        except FileNotFoundError:
            return frozenset()
        if changed != self._read_at:
            # Within one tick of the clock it may change again: then what is read now is not kept.
            settled = changed < time.time_ns() - SETTLED_NS
            self._names = in_use(self._store)
            self._read_at = changed if settled else None
        return self._names
