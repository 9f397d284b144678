"""Which artifacts a config reaches, and which artifacts a running pipeline is about to use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from flows.plan.states import make_plan
from flows.run.records import RunRecord, is_running, read_records, records_folder
from flows.stages.base import Stage
from storage.store import Store

SETTLED_NS = 50_000_000


@dataclass
class Reach:
    """`names` as `kind/key`; `unmade` are stages whose followers cannot be named before they are made."""

    names: set[str] = field(default_factory=set)
    unmade: list[str] = field(default_factory=list)

    def add(self, other: Reach) -> None:
        self.names |= other.names
        self.unmade += other.unmade


def reached_by(stages: Sequence[Stage], store: Store) -> Reach:
    """What a plan of the stages names in `store`, made or not yet; nothing is made."""
    reach = Reach()
    for planned in make_plan(stages, store):
        if planned.identity is not None:
            reach.names.add(planned.identity.name)
        if planned.artifact is None:
            reach.unmade.append(planned.stage.name)
    return reach


def in_use(store: Store) -> frozenset[str]:
    """What the runs that are active now have used or made so far, as `kind/key`."""
    running = filter(is_running, read_records(store.root))
    return frozenset(name for record in running for name in record.artifacts())


def last_users(store: Store) -> dict[str, RunRecord]:
    """By artifact, `kind/key`: the last run or study that used or built it, as far as records are kept."""
    users: dict[str, RunRecord] = {}
    for record in read_records(store.root):
        for name in record.artifacts():
            users.setdefault(name, record)
    return users


class InUse:
    """`in_use` for repeated questions: records are read only if one was written since.

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
