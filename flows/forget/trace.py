"""What tells a subject in the files of a store: names, boxes, rows of arrays, and pixels.

It is gathered while the store still holds the subject, and never written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.images import ImageFile
from data_catalog.row_tables import COORDINATES, corners
from data_catalog.snapshot import Snapshot
from flows.forget.holders import HeldSnapshot, Holders
from flows.forget.subject import Subject
from flows.plan.views import ViewSpec, read_scenes
from flows.stages.detected_blocks import DETECTION, TestImages
from flows.stages.detections import ROWS
from flows.stages.gallery import EMBEDDINGS, UNTRAINED_EMBEDDINGS
from storage.feature_store.layout import ARRAY, INDEX_FILE
from storage.feature_store.metadata import read_layout
from storage.feature_store.shard_files import read_shard
from storage.listing import Entry
from storage.store import Store

Corners = tuple[float, float, float, float]


@dataclass
class Trace:
    """Of one subject.

    box_ids, query_ids, images, paths: names of its boxes and queries, and of images that go. places:
    by image_id, boxes that show it: annotated, asked for, detected. regions: the same by image file. rows:
    digests of its rows of feature stores and of embeddings. contents: SHA-256 of the image files that show
    it.
    """

    subject: Subject
    box_ids: set[str] = field(default_factory=set)
    query_ids: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    places: dict[str, set[Corners]] = field(default_factory=dict)
    regions: dict[ImageFile, set[Corners]] = field(default_factory=dict)
    rows: set[bytes] = field(default_factory=set)
    contents: set[str] = field(default_factory=set)


def trace_of(store: Store, subject: Subject, holders: Holders, root: Path | None) -> Trace:
    """Gather the trace from the snapshots that hold the subject and what was made from them.

    `root`: of the dataset's images; without it, pictures are not compared.
    """
    trace = Trace(subject)
    snapshots = {
        each.name: each
        for each in holders.snapshots
        if each.artifact.manifest.identity.recipe["dataset"] == subject.dataset
    }
    for held in snapshots.values():
        _add_snapshot(trace, held, root)
    others: set[bytes] = set()
    for entry in holders.data:
        _add_rows(trace, others, store, entry, snapshots, root)
    trace.rows -= others  # an empty crop, say, is a row of many
    return trace


def row_digests(rows: np.ndarray) -> list[bytes]:
    """A digest of each row of an array (n, ...), by its bytes."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def blocks_of_rows(group: Path) -> Iterator[np.ndarray]:
    """The rows of a feature store, shard by shard. Raises StorageError when it is damaged."""
    layout = read_layout(group)
    for shard in range(layout.n_shards):
        yield read_shard(group / ARRAY, layout, shard)


def _add_snapshot(trace: Trace, held: HeldSnapshot, root: Path | None) -> None:
    snapshot = Snapshot(held.artifact.path)
    trace.box_ids |= held.box_ids
    trace.query_ids |= held.query_ids
    trace.images |= held.image_ids
    boxes = snapshot.table("boxes", ["box_id", "image_id", *COORDINATES])
    whole = pc.is_in(boxes["image_id"], value_set=pa.array(sorted(held.image_ids), pa.string()))
    own = pc.is_in(boxes["box_id"], value_set=pa.array(sorted(held.box_ids), pa.string()))
    shown = boxes.filter(pc.or_(whole, own)).to_pylist()
    images = {row["image_id"]: row for row in snapshot.table("images", _IMAGE_COLUMNS).to_pylist()}
    trace.paths.update(images[image_id]["rel_path"] for image_id in held.image_ids)
    seen = held.image_ids.union(row["image_id"] for row in shown)
    trace.contents.update(images[image_id]["sha256"] or "" for image_id in seen)
    for row in shown:
        _add_places(trace, images[row["image_id"]], [(row["x1"], row["y1"], row["x2"], row["y2"])], root)


_IMAGE_COLUMNS = ("image_id", "rel_path", "sha256", "decoding", "split")


def _add_places(trace: Trace, image: dict[str, str], boxes: Collection[Corners], root: Path | None) -> None:
    if boxes:
        trace.places.setdefault(image["image_id"], set()).update(boxes)
        if root is not None:
            file = ImageFile.of_row(root, image["rel_path"], image["decoding"])
            trace.regions.setdefault(file, set()).update(boxes)


def _add_rows(
    trace: Trace,
    others: set[bytes],
    store: Store,
    entry: Entry,
    snapshots: dict[str, HeldSnapshot],
    root: Path | None,
) -> None:
    """The subject's rows of an artifact, and those of all others."""
    path = store.local_path(entry.kind, entry.key)
    if entry.kind == "features":
        mine = _named(trace, pq.read_table(path / INDEX_FILE, columns=["box_id", "image_id"]))
        _add(trace, others, mine, blocks_of_rows(path))
    elif entry.kind == "detections":
        held = next((snapshots[name] for name in entry.sources if name in snapshots), None)
        if held is not None:
            mine = _shown(trace, held, pq.read_table(path / ROWS), root)
            _add(trace, others, mine, blocks_of_rows(path))
            _add_embeddings(trace, others, store, entry, mine)


def _add(trace: Trace, others: set[bytes], mine: np.ndarray, blocks: Iterable[np.ndarray]) -> None:
    digests = (digest for block in blocks for digest in row_digests(block))
    for is_mine, digest in zip(mine.tolist(), digests, strict=True):
        (trace.rows if is_mine else others).add(digest)


def _add_embeddings(trace: Trace, others: set[bytes], store: Store, entry: Entry, mine: np.ndarray) -> None:
    """Those of the galleries that were made from these detections."""
    for kind, key in store.keys("gallery"):
        gallery = store.peek(kind, key)
        if gallery is not None and entry.name in gallery.manifest.sources.values():
            for name in (EMBEDDINGS, UNTRAINED_EMBEDDINGS):
                if (gallery.path / name).is_file():
                    _add(trace, others, mine, [np.load(gallery.path / name)])


def _named(trace: Trace, rows: pa.Table) -> np.ndarray:
    """Which rows are of the subject's boxes or images."""
    found = [
        pc.is_in(rows[column].cast(pa.string()), value_set=pa.array(sorted(names), pa.string()))
        for column, names in (("box_id", trace.box_ids), ("image_id", trace.images))
    ]
    return np.asarray(pc.or_(*found).to_numpy(zero_copy_only=False), bool)


def _shown(trace: Trace, held: HeldSnapshot, rows: pa.Table, root: Path | None) -> np.ndarray:
    """Which rows of detections show the subject: its boxes, queries of them, and what was detected there.

    The boxes of what was detected are added to the trace's places.
    """
    snapshot = Snapshot(held.artifact.path)
    mine = _named(trace, rows)
    image_ids, roles = (rows[name].cast(pa.string()).to_pylist() for name in ("image_id", "role"))
    boxes = corners(rows)
    numbers: dict[str, list[int]] = {}
    for number, image_id in enumerate(image_ids):
        numbers.setdefault(image_id, []).append(number)
    images = {row["image_id"]: row for row in snapshot.table("images", _IMAGE_COLUMNS).to_pylist()}
    for split in sorted({images[image_id]["split"] for image_id in numbers if image_id in images}):
        scenes = read_scenes(held.artifact.path, ViewSpec(trace.subject.dataset, split, "test"), Path())
        wanted = TestImages(scenes, [], [], frozenset(trace.box_ids))
        for at, scene in enumerate(scenes):
            here = np.array(numbers.get(scene.image_id, []), np.int64)
            is_found = np.array([roles[number] == DETECTION for number in here], bool)
            mine[here[is_found]] |= ~wanted.kept(at, boxes[here[is_found]])
            own = {
                box.tobytes()
                for box, name in zip(scene.boxes, scene.box_ids, strict=True)
                if name in trace.box_ids
            }
            mine[here] |= [box.tobytes() in own for box in boxes[here]]
            shown = [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes[here[mine[here]]].tolist()]
            _add_places(trace, images[scene.image_id], shown, root)
    return mine
