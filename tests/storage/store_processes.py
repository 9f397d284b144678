"""Processes that work on one store, one command at a time, until they are killed.

Three artifacts form a chain; the version of an artifact is what its file says.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from storage import tags
from storage.gc import collect, find_garbage
from storage.local import LocalStore
from storage.manifest import Identity
from storage.store import Artifact, Store

CHAIN = ("ingest", "features", "reid")
"""Each made from the one before."""
ROWS = "rows.bin"
_FORKS = multiprocessing.get_context("forkserver")  # of a process without threads
_FORKS.set_forkserver_preload(["pytest", __name__])


def identity(kind: str) -> Identity:
    return Identity(kind=kind, version=1, recipe={}, inputs={before: before for before in sources(kind)[-1:]})


def sources(kind: str) -> tuple[str, ...]:
    return CHAIN[: CHAIN.index(kind)]


def name_of(kind: str) -> str:
    return f"{kind}/{identity(kind).key}"


def version(artifact: Artifact) -> int:
    return int((artifact.path / ROWS).read_text().split()[0])


def rows(number: int) -> str:
    return f"{number} " * 50


class StoreProcess:
    """A process that can be told something, answer, and be killed at any time."""

    def __init__(self, root: Path) -> None:
        self._connection, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=_serve, args=(theirs, root), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def tell(self, *words: Any) -> None:
        self._connection.send(words)

    def answer(self) -> Any:
        """What it answers; raises what went wrong there, and EOFError if it is killed meanwhile."""
        if not self._connection.poll(30):
            raise TimeoutError("no answer after 30 s")
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, *words: Any) -> Any:
        self.tell(*words)
        return self.answer()

    def is_silent(self, seconds: float = 0.02) -> bool:
        return not self._connection.poll(seconds)

    def kill(self) -> None:
        """SIGKILL, as `kill -9`."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, root: Path) -> None:
    logging.disable()
    tags.COLLECTION_SECONDS = 0.05  # builders here hold a lock for as long as the test likes
    store = LocalStore(root)
    while True:
        command, *arguments = connection.recv()
        try:
            answer = _COMMANDS[command](store, connection, *arguments)
        except Exception as error:
            answer = error
        connection.send(answer)


def _take(store: Store, connection: Connection, kind: str, again: bool) -> str:
    """Hold the key, then do as told until the artifact is committed or given up."""
    with store.making(identity(kind), again=again) as work:
        if work.made is not None:
            return "made already"
        connection.send("held")
        while (command := connection.recv())[0] == "write":
            (work.path / ROWS).write_text(rows(command[1])[:7])
            connection.send("written")
        if command[0] == "commit":
            (work.path / ROWS).write_text(rows(command[1]))
            (work.path / "nested").mkdir(exist_ok=True)
            (work.path / "nested" / "note.txt").write_text("more than one file")
            work.commit(kind, sources={before: name_of(before) for before in sources(kind)[-1:]})
    return "done"


def _collect(store: Store, connection: Connection, keep: Iterable[str]) -> str:
    names = {name_of(kind) for kind in keep}
    collect(store, find_garbage(store, names), lambda: names)
    return "done"


def _remove(store: Store, connection: Connection, kind: str) -> str:
    with store.place.making_now(kind, identity(kind).key) as alone:
        if not alone:
            return "in use"
        store.remove(kind, identity(kind).key)
    return "done"


def _tag(store: Store, connection: Connection, tag: str, kind: str) -> str:
    tags.set_tag(store, tag, name_of(kind))
    return "done"


def _untag(store: Store, connection: Connection, tag: str) -> str:
    tags.remove_tag(store, tag)
    return "done"


def _read(store: Store, connection: Connection, kind: str) -> int | None:
    found = store.find(kind, identity(kind).key)
    return None if found is None else version(found)


_COMMANDS: dict[str, Callable[..., Any]] = {
    "take": _take,
    "collect": _collect,
    "remove": _remove,
    "tag": _tag,
    "untag": _untag,
    "read": _read,
}
