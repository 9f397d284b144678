"""Several processes on one store, in any order, killed at any time, against a model of ten lines.

A kill that may come before or after a change is followed by the whole change: hypothesis needs rules whose
outcome does not depend on time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.listing import list_entries
from storage.local import LocalStore
from storage.tags import tags
from tests.memory import folder_in_memory
from tests.storage.store_processes import CHAIN, StoreProcess, identity, name_of, sources, version

EXAMPLES = int(os.environ.get("PERSONSEARCH_MACHINE_EXAMPLES", "0"))
"""For a campaign; 0 is the same few each time."""
TAGS = ("best", "release")
N_PROCESSES = 3
kinds = st.sampled_from(CHAIN)


@dataclass
class Model:
    """What a store should hold: versions of artifacts, what tags name, and who holds which key."""

    made: dict[str, int] = field(default_factory=dict)
    tagged: dict[str, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)

    def has_sources(self, kind: str) -> bool:
        return all(source in self.made for source in sources(kind)[-1:])

    def kept(self) -> set[str]:
        used = {*self.tagged.values(), *self.held}
        return {*used, *(source for kind in used for source in sources(kind))}

    def collected(self) -> dict[str, int]:
        return {kind: made for kind, made in self.made.items() if kind in self.kept()}


class StoreMachine(RuleBasedStateMachine):
    """A process is idle, holds a key, or waits for one that another holds."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="store-machine-", dir=folder_in_memory()))
        self.store, self.model, self.next = LocalStore(self.root), Model(), 0
        self.processes = [StoreProcess(self.root) for _ in range(N_PROCESSES)]
        self.waiting: dict[str, int] = {}

    def teardown(self) -> None:
        for process in self.processes:
            process.kill()
        shutil.rmtree(self.root)

    def idle(self) -> list[int]:
        busy = {*self.model.held.values(), *self.waiting.values()}
        return [number for number in range(N_PROCESSES) if number not in busy]

    def _version(self) -> int:
        self.next += 1
        return self.next

    def _free(self) -> list[str]:
        return [kind for kind in CHAIN if kind not in self.model.held and self.model.has_sources(kind)]

    def _lock_is_free(self, kind: str) -> None:
        """Whoever waits for a key takes it over."""
        self.model.held.pop(kind, None)
        if kind in self.waiting:
            waiter = self.waiting.pop(kind)
            answer = self.processes[waiter].answer()
            assert answer == ("made already" if kind in self.model.made else "held")
            if answer == "held":
                self.model.held[kind] = waiter

    def _killed(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number] = StoreProcess(self.root)

    @precondition(lambda self: self.idle() and self._free())
    @rule(data=st.data(), again=st.booleans())
    def take(self, data: st.DataObject, again: bool) -> None:
        number, kind = data.draw(st.sampled_from(self.idle())), data.draw(st.sampled_from(self._free()))
        answer = self.processes[number].ask("take", kind, again)
        assert answer == ("held" if again or kind not in self.model.made else "made already")
        if answer == "held":
            self.model.held[kind] = number

    @precondition(lambda self: self.idle() and set(self.model.held) - set(self.waiting))
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(sorted(set(self.model.held) - set(self.waiting))))
        number = self.idle()[0]
        self.processes[number].tell("take", kind, False)
        assert self.processes[number].is_silent()
        self.waiting[kind] = number

    @precondition(lambda self: self.model.held)
    @rule(data=st.data(), how=st.sampled_from(["commit", "give up", "die", "die with half a file"]))
    def end(self, data: st.DataObject, how: str) -> None:
        kind = data.draw(st.sampled_from(sorted(self.model.held)))
        number = self.model.held[kind]
        if how == "commit":
            new = self._version()
            assert self.processes[number].ask("commit", new) == "done"
            self.model.made[kind] = new
        elif how == "give up":
            assert self.processes[number].ask("give up") == "done"
        else:
            if how == "die with half a file":
                self.processes[number].ask("write", self._version())
            self._killed(number)
        self._lock_is_free(kind)

    @precondition(lambda self: set(self.model.held) - set(self.waiting))
    @rule(data=st.data(), seconds=st.floats(0, 0.004))
    def die_while_committing(self, data: st.DataObject, seconds: float) -> None:
        """The old version is there or the new one; another process then makes it the new one in any case."""
        kind = data.draw(st.sampled_from(sorted(set(self.model.held) - set(self.waiting))))
        number, new = self.model.held.pop(kind), self._version()
        self.processes[number].tell("commit", new)
        self.processes[number].is_silent(seconds)
        self._killed(number)
        found = self.store.find(kind, identity(kind).key)
        assert (None if found is None else version(found)) in (self.model.made.get(kind), new)
        assert self.processes[number].ask("take", kind, True) == "held"
        assert self.processes[number].ask("commit", new) == "done"
        self.model.made[kind] = new

    @precondition(lambda self: self.idle() and self.model.made)
    @rule(data=st.data(), tag=st.sampled_from(TAGS))
    def tag(self, data: st.DataObject, tag: str) -> None:
        kind = data.draw(st.sampled_from(sorted(self.model.made)))
        assert self._any().ask("tag", tag, kind) == "done"
        self.model.tagged[tag] = kind

    @precondition(lambda self: self.idle() and self.model.tagged)
    @rule()
    def untag(self) -> None:
        tag = min(self.model.tagged)
        assert self._any().ask("untag", tag) == "done"
        del self.model.tagged[tag]

    @precondition(lambda self: self.idle())
    @rule()
    def collect(self) -> None:
        assert self._any().ask("collect", self._in_use()) == "done"
        self.model.made = self.model.collected()

    @precondition(lambda self: self.idle())
    @rule(seconds=st.floats(0, 0.004))
    def die_while_collecting(self, seconds: float) -> None:
        """What is needed is there, and nothing is back; another process then collects the rest."""
        number = self.idle()[0]
        self.processes[number].tell("collect", self._in_use())
        self.processes[number].is_silent(seconds)
        self._killed(number)
        there = {entry.kind for entry in list_entries(self.store)}
        assert set(self.model.collected()) <= there <= set(self.model.made)
        self.collect()

    def _removable(self) -> list[str]:
        """What is held, which is refused, and what nothing needs; a person may also remove what is tagged."""
        kept = self.model.kept()
        return [kind for kind in self.model.made if kind in self.model.held or kind not in kept]

    @precondition(lambda self: self.idle() and self._removable())
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(self._removable()))
        answer = self._any().ask("remove", kind)
        assert answer == ("in use" if kind in self.model.held else "done")
        if answer == "done":
            del self.model.made[kind]

    @precondition(lambda self: self.idle())
    @rule(kind=kinds)
    def read(self, kind: str) -> None:
        assert self._any().ask("read", kind) == self.model.made.get(kind)

    def _any(self) -> StoreProcess:
        return self.processes[self.idle()[0]]

    def _in_use(self) -> list[str]:
        """What the records of runs name: what is being built, and its sources."""
        return sorted({source for kind in self.model.held for source in (*sources(kind), kind)})

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        found: dict[str, Any] = {}
        for entry in list_entries(self.store):
            artifact = self.store.find(entry.kind, entry.key)
            assert artifact is not None, f"{entry.name} is listed and cannot be used"
            found[entry.kind] = version(artifact)
        assert found == self.model.made
        assert tags(self.store) == {tag: name_of(kind) for tag, kind in self.model.tagged.items()}
        holders = {kind: self.store.place.holder(kind, identity(kind).key) for kind in CHAIN}
        assert {kind: pid for kind, pid in holders.items() if pid} == {
            kind: self.processes[number].pid for kind, number in self.model.held.items()
        }
        assert not list(self._set_aside())

    def _set_aside(self) -> Iterator[Path]:
        return (self.root / ".damaged").glob("*")


StoreMachine.TestCase.settings = settings(
    max_examples=EXAMPLES or 40,
    stateful_step_count=30,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestStoreMachine = StoreMachine.TestCase
