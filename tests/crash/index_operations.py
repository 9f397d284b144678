"""Updates of a search index that must survive a death at any of their calls.

Files and the people in them are invented: what a model finds is no matter here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.search.building import put_in_place, read_part
from flows.search.changes import Changes
from flows.search.committing import alone
from flows.search.index import open_index
from flows.search.layout import (
    PEOPLE_SCHEMA,
    SOURCES_SCHEMA,
    Description,
    IndexedPlace,
    Settings,
    is_index,
    read_description,
)
from flows.search.segments import Part, Segments
from flows.search.sources import SceneFile
from flows.search.verification import require_whole
from tests.crash.bench import Operation, Outcome

SCENES = IndexedPlace(kind="folder", path="/scenes", from_index="../scenes")
DIMENSIONS, STAT = 4, (10, 1)
BEFORE, AFTER = (0, 1), (1, 2, 3)
"""Numbers of the scenes of the index before and after the update."""


def _name(scene: int) -> str:
    return f"{scene}.jpg"


def _found(scene: int) -> Part:
    """What was found in a scene: two people whose embeddings say which."""
    source = {"place": 0, "image": _name(scene), "kind": "image", "bytes": STAT[0], "mtime_ns": STAT[1]}
    source |= {"sha256": f"{scene:064x}", "frames": 1}
    person = {"source": 0, "place": 0, "image": _name(scene), "x1": 0.0, "y1": 0.0, "x2": 5.0, "y2": 9.0}
    return Part(
        pa.Table.from_pylist([source], SOURCES_SCHEMA),
        pa.Table.from_pylist([{**person, "score": score} for score in (0.9, 0.8)], PEOPLE_SCHEMA),
        np.full((2, DIMENSIONS), scene, np.float16),
    )


def _update(index: Path, scenes: tuple[int, ...]) -> None:
    """What `build_index` does beside searching the scenes."""
    with alone(index):
        new = Description(model="0" * 64, dimensions=DIMENSIONS, settings=Settings())
        description = read_description(index) if is_index(index) else new
        old = read_part(index, description)
        wanted = {(0, _name(scene)): scene for scene in scenes}
        there = {(row["place"], row["image"]) for row in old.sources.to_pylist()}
        todo = [SceneFile(*key, Path(), "image", *STAT) for key in sorted(wanted.keys() - there)]
        changes = Changes(todo=todo, kept=dict.fromkeys(sorted(wanted.keys() & there), STAT))
        segments = Segments(index, "this purpose")
        done = {row["image"] for part in segments.read() for row in part.sources.to_pylist()}
        for source in todo:
            if source.image not in done:
                segments.write(_found(wanted[source.key]))
        put_in_place(index, description, [SCENES], [old, *segments.read()], changes)
        segments.remove()


def prepare(folder: Path) -> None:
    _update(folder / "index", BEFORE)


def update(folder: Path) -> None:
    _update(folder / "index", AFTER)


def check(folder: Path) -> list[str]:
    """What is wrong with the index, which is there before, while and after it is updated."""
    index = open_index(folder / "index")
    require_whole(folder / "index")
    scenes = tuple(sorted({int(name.partition(".")[0]) for name in index.sources["image"].to_pylist()}))
    rows = np.concatenate(index.blocks)[:, 0].astype(int).tolist()
    people = [int(name.partition(".")[0]) for name in index.table["image"].to_pylist()]
    faults = [] if scenes in (BEFORE, AFTER) else [f"it has the scenes {scenes}"]
    return faults if rows == people else [*faults, f"embeddings of {rows} belong to people of {people}"]


def outcome(folder: Path) -> Outcome:
    index = open_index(folder / "index")
    return {
        "content": index.description.content,
        "people": index.table["image"].to_pylist(),
        # A lock that no process holds is as good as none.
        "left": sorted(path.name for path in (folder / "index").iterdir() if path.name != ".lock"),
    }


INDEX = Operation("index", prepare, update, check, outcome)
