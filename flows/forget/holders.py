"""What a store holds of a subject: snapshots, what was made from their rows, and models that learnt them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.forgotten import Forgotten, filled_images
from data_catalog.row_tables import COORDINATES
from data_catalog.snapshot import Snapshot
from data_catalog.suggestions import did_you_mean
from flows.config.pins import TRAINED
from flows.config.trained_on import VIEWS
from flows.errors import ConfigError
from flows.forget.subject import Subject
from flows.plan.catalog import KIND, StoreSnapshots
from storage.gc import sources_first
from storage.listing import Entry, list_entries, with_followers
from storage.manifest import Manifest
from storage.store import Artifact, Store
from storage.tags import tags

_BOX_COLUMNS = ("box_id", "image_id", "split", *COORDINATES, "person_id", "person_id_raw")


@dataclass(frozen=True)
class HeldSnapshot:
    """A snapshot with rows of a subject.

    splits: those of its images and boxes. box_ids: of people's boxes. image_ids: of whole images. query_ids:
    of queries that are the subject's in every protocol.
    """

    artifact: Artifact
    splits: frozenset[str]
    box_ids: frozenset[str]
    image_ids: frozenset[str]
    query_ids: frozenset[str]

    @property
    def name(self) -> str:
        return self.artifact.name


@dataclass(frozen=True)
class Model:
    """A detector or a branch that was trained on a subject. seconds: what its training took."""

    name: str
    created: str
    seconds: float
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holders:
    """data: what was made from the subjects' rows, each after what it was made from; without snapshots."""

    snapshots: Sequence[HeldSnapshot] = ()
    data: Sequence[Entry] = ()
    models: Sequence[Model] = ()
    tagged: Mapping[str, str] = field(default_factory=dict)
    """Tags that point to the snapshots or the data, and to which."""

    @property
    def names(self) -> list[str]:
        """The artifacts `kind/key` to delete, each before what it was made from."""
        return [*(entry.name for entry in reversed(self.data)), *(each.name for each in self.snapshots)]


def find_holders(store: Store, subjects: Iterable[Subject]) -> Holders:
    """Read the manifests of a store, and the tables of the subjects' datasets."""
    found = (
        _held(artifact, subject.as_forgotten)
        for subject in subjects
        for artifact in StoreSnapshots(store).every(subject.dataset)
    )
    snapshots = [each for each in found if each is not None]
    if not snapshots:
        return Holders()
    entries = list_entries(store)
    followers = with_followers(entries, [each.name for each in snapshots])
    splits = {each.name: each.splits for each in snapshots}
    holding, learnt = set(splits), set[str]()
    data, models = [], []
    pointing = tags(store)
    for entry in sources_first(each for each in entries if each.name in followers and each.kind != KIND):
        made = store.peek(entry.kind, entry.key)
        if made is None:
            continue
        if entry.kind in TRAINED:
            if _holds(made.manifest, holding | learnt, splits):
                learnt.add(entry.name)
                own = tuple(sorted(tag for tag, name in pointing.items() if name == entry.name))
                models.append(Model(entry.name, entry.created, entry.seconds, own))
        elif _holds(made.manifest, holding, splits):
            holding.add(entry.name)
            data.append(entry)
    tagged = {tag: name for tag, name in pointing.items() if name in holding}
    return Holders(snapshots, data, models, tagged)


def require_known(store: Store, subjects: Iterable[Subject], listed: Mapping[str, Forgotten]) -> None:
    """Raise ConfigError for a person or an image that no snapshot has and that is not on the list already.

    `listed`: by dataset, whom the list forgets.
    """
    for subject in subjects:
        snapshots = [Snapshot(artifact.path) for artifact in StoreSnapshots(store).every(subject.dataset)]
        on_list = listed[subject.dataset]
        people = {each for each in subject.people if not on_list.is_person(each)}
        images = {each for each in subject.images if not on_list.is_image(each)}
        known_people = _values(snapshots, "boxes", "person_id") | _values(snapshots, "queries", "person_id")
        known_images = _values(snapshots, "images", "image_id")
        for option, wanted, known in (("person", people, known_people), ("image", images, known_images)):
            for name in sorted(wanted - known):
                if not snapshots:
                    there = StoreSnapshots(store).names()
                    near = did_you_mean(subject.dataset, there) or f"; it has: {', '.join(there) or 'none'}"
                    why = f"the store has no snapshot of {subject.dataset!r}{near}"
                else:
                    near = did_you_mean(name, known) or _such_as(known)
                    why = f"no snapshot of {subject.dataset} has it{near}"
                raise ConfigError(f"--{option} {subject.dataset}/{name}: {why}")


def _such_as(known: Collection[str]) -> str:
    shown = sorted(known)[:3]
    return f"; it has {len(known):,}, such as {', '.join(shown)}" if shown else "; it has none"


def files_of(snapshots: Iterable[HeldSnapshot], image_ids: Collection[str]) -> set[tuple[str, str]]:
    """The files of a root that are about images, by their paths: with the SHA-256 of images, '' otherwise."""
    wanted = pa.array(sorted(image_ids), pa.string())
    found: set[tuple[str, str]] = set()
    for each in snapshots:
        columns = ["image_id", "rel_path", "sha256", "source_unit"]
        table = Snapshot(each.artifact.path).table("images", columns)
        for row in table.filter(pc.is_in(table["image_id"], value_set=wanted)).to_pylist():
            found |= {(row["source_unit"], ""), (row["rel_path"], row["sha256"] or "")}
    return found


def _held(artifact: Artifact, wanted: Forgotten) -> HeldSnapshot | None:
    snapshot = Snapshot(artifact.path)
    boxes = snapshot.table("boxes", _BOX_COLUMNS)
    boxes = boxes.filter(wanted.person_boxes(boxes))
    everything = snapshot.table("images", ["image_id", "split", "width", "height"])
    filled = pc.is_in(everything["image_id"], value_set=filled_images(everything, boxes))
    images = everything.filter(pc.or_(wanted.among(everything["image_id"], "image"), filled))
    queries = snapshot.table("queries", ["query_id", "image_id", "person_id"])
    on_image = pc.is_in(queries["image_id"], value_set=images["image_id"].combine_chunks())
    mine = pc.or_(wanted.among(queries["person_id"], "person"), on_image)
    asked, others = queries.filter(mine), queries.filter(pc.invert(mine))
    if not (len(images) or len(boxes) or len(asked)):
        return None
    shown = pc.is_in(everything["image_id"], value_set=asked["image_id"].combine_chunks())
    splits = (table["split"].to_pylist() for table in (images, boxes, everything.filter(shown)))
    return HeldSnapshot(
        artifact,
        frozenset().union(*splits),
        frozenset(boxes["box_id"].to_pylist()),
        frozenset(images["image_id"].to_pylist()),
        frozenset(asked["query_id"].to_pylist()) - frozenset(others["query_id"].to_pylist()),
    )


def _holds(manifest: Manifest, holding: Collection[str], splits: Mapping[str, frozenset[str]]) -> bool:
    """Whether a source has rows of a subject: of a snapshot, the split that was taken of it."""
    views: Mapping[str, Any] = manifest.made_by.get(VIEWS, {})
    return any(
        source in holding
        and (source not in splits or views.get(name, {}).get("split") in (None, *splits[source]))
        for name, source in manifest.sources.items()
    )


def _values(snapshots: Iterable[Snapshot], table: str, column: str) -> set[str]:
    columns = (snapshot.table(table, [column])[column] for snapshot in snapshots)
    return {value for each in columns for value in each.unique().to_pylist() if value is not None}
