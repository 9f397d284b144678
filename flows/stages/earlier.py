"""Rows of features and of detections that an earlier artifact has: growth costs what is new.

A row is a function of its image's bytes, of its box, and of what computes it. An artifact notes the latter as
its `means`; where those of an earlier artifact are equal, rows of equal images and boxes are taken from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from flows.console import told
from flows.plan.memo import Memo
from flows.plan.views import SnapshotView, ViewSpec
from flows.provenance import computed_on
from flows.stages.base import StageContext
from flows.wording import short_name
from storage.digests import digest_json
from storage.errors import StorageError
from storage.feature_store.index_table import check_index, read_index
from storage.feature_store.layout import INDEX_FILE
from storage.manifest import ROWS, parse_manifest
from storage.store import Artifact, Store

if TYPE_CHECKING:
    import torch

    from storage.feature_store.taking_over import DamagedRowsError, EarlierRows

log = logging.getLogger(__name__)

REMEMBERED = 4
"""The newest artifacts of the same means and view whose keys are remembered on this machine."""
LISTED = 200
"""Without a remembered one, all artifacts of the kind are looked at, unless there are more than these."""
ENOUGH = 0.5
"""An artifact with this share of what is wanted is taken without looking for a better one."""

Context = StageContext[Any, Any, Any]


@dataclass(frozen=True)
class Means:
    """What computes a stage's rows: `fields` are JSON, and decide with image and boxes on every bit.

    `refusal` says why rows that were computed with other neighbours, or elsewhere, might have other bits:
    then none are taken or given. None where it is proved that they have the same.
    """

    fields: Mapping[str, Any]
    refusal: str | None


@dataclass(frozen=True)
class Earlier:
    """An earlier artifact that has rows which are wanted.

    trusted: its files that are unchanged since they were verified. images: image_id and `content` of the
    images that it was made from, in the order of its rows. match: what the stage found for each thing that it
    wants, -1 where the artifact does not have it.
    """

    artifact: Artifact
    source: EarlierRows
    trusted: frozenset[str]
    images: pa.Table
    match: np.ndarray

    def index(self, columns: Sequence[str]) -> pa.Table:
        """Columns of `index.parquet`. Raises StorageError when it is damaged."""
        if INDEX_FILE not in self.trusted:
            check_index(self.artifact.path, self.source.layout.n_rows)
        return read_index(self.artifact.path / INDEX_FILE, columns)

    def without(self, lost: np.ndarray, damage: DamagedRowsError) -> Earlier:
        """The same without what lies on damaged rows; `lost` is a mask of `match`."""
        log.warning(
            "rows %d to %d of %s are damaged, and computed again: %s",
            damage.rows.start,
            damage.rows.stop - 1,
            self.artifact.name,
            damage,
        )
        return replace(self, match=np.where(lost, -1, self.match))


def means_of(
    version: int, recipe: Mapping[str, Any], weights: str | None, device: torch.device, refusal: str | None
) -> Means:
    """The means of a stage: its VERSION, the fields of its recipe that a row depends on, the digest of the
    layers that compute it, and the machine."""
    fields = {"version": version, "recipe": dict(recipe), "weights": weights, "on": computed_on(device)}
    return Means(fields, refusal)


def contents(images: pa.Table) -> list[str]:
    """What of an image its rows depend on: the bytes of its file, and how they are decoded."""
    pairs = zip(images["sha256"].to_pylist(), images["decoding"].to_pylist(), strict=True)
    return [f"{sha256} {decoding or ''}" for sha256, decoding in pairs]


@contextmanager
def earlier_rows(
    context: Context, view: SnapshotView, means: Means, match: Callable[[Earlier], np.ndarray]
) -> Iterator[Earlier | None]:
    """The earlier artifact that has most of what `match` wants, kept in place while the block lasts.

    None where no artifact has any of it, where a rebuild was asked for, or where rows may not be mixed.
    """
    store = context.store
    if store is None or context.again:
        yield None
        return
    if means.refusal is not None:
        log.info("every row is computed: %s", means.refusal)
        yield None
        return
    with ExitStack() as held:
        best, most = None, 0
        for artifact in _candidates(context, store, view, means):
            if not held.enter_context(store.place.reading_now(artifact.kind, artifact.key)):
                continue
            found = _opened(store, artifact)
            if found is None:
                continue
            try:
                found = replace(found, match=match(found))
            except (StorageError, OSError) as error:
                log.warning("%s cannot be used: %s", artifact.name, error)
                continue
            count = int(np.count_nonzero(found.match >= 0))
            if count > most:
                best, most = found, count
            if most >= ENOUGH * len(found.match):
                break
        yield best


def record(
    context: Context, view: SnapshotView, means: Means, rows: int, taken: int, of: Earlier | None
) -> dict[str, Any]:
    """What the manifest says of the rows; also told, and remembered for the next artifact to be found by."""
    name = None if of is None or not taken else of.artifact.name
    if name is not None:
        kind = name.partition("/")[0]
        told.info("%s", f"{kind:14} {taken:,} of {rows:,} rows taken from {short_name(name)}")
    if context.store is not None:
        memo, key = _memo(context.store, view, means), context.name.rpartition("/")[2]
        known = [each for each in (memo.read() or "").split() if each != key]
        memo.write(" ".join([key, *known][:REMEMBERED]))
    spec = view.spec
    return {
        ROWS: {
            "means": dict(means.fields) if means.refusal is None else None,
            "view": [spec.dataset, spec.split],
            "taken_from": name,
            "taken": taken,
            "of": rows,
        }
    }


def _memo(store: Store, view: SnapshotView, means: Means) -> Memo:
    question = {"means": digest_json(dict(means.fields)), "view": [view.spec.dataset, view.spec.split]}
    return Memo(store.root, "rows", question)


def _candidates(context: Context, store: Store, view: SnapshotView, means: Means) -> Iterator[Artifact]:
    """Artifacts of the same means, the newest first; few manifests are read, however large the store is."""
    kind, _, own = context.name.partition("/")
    remembered = (_memo(store, view, means).read() or "").split()
    peeked = (store.peek(kind, key) for key in remembered if key.isalnum() and key != own)
    found = [artifact for artifact in peeked if artifact is not None and _has(artifact, means)]
    yield from found or _listed(store, kind, own, means)


def _listed(store: Store, kind: str, own: str, means: Means) -> list[Artifact]:
    """The same by reading the newest manifests of the kind, or all where this machine knows of none."""
    keys = store.newest(kind) or [key for _, key in islice(store.keys(kind), LISTED + 1)]
    if len(keys) > LISTED:
        log.info("no earlier %s are remembered, and there are too many to read all manifests", kind)
        return []
    artifacts = []
    for key, raw in store.read_manifests(kind, keys):
        try:
            artifact = Artifact(store.place.path_of(kind, key), parse_manifest(raw, f"{kind}/{key}"))
        except StorageError as error:
            log.info("%s", error)
            continue
        if key != own and _has(artifact, means):
            artifacts.append(artifact)
    newest_first = sorted(artifacts, key=lambda artifact: artifact.manifest.created, reverse=True)
    return newest_first[:REMEMBERED]


def _has(artifact: Artifact, means: Means) -> bool:
    noted = artifact.manifest.made_by.get(ROWS)
    return isinstance(noted, dict) and noted.get("means") == dict(means.fields)


def _opened(store: Store, artifact: Artifact) -> Earlier | None:
    """An artifact and the images of its snapshot; None where one of them is gone or damaged."""
    from storage.feature_store.taking_over import EarlierRows

    manifest = artifact.manifest
    dataset, split = manifest.made_by[ROWS]["view"]
    try:
        here = store.here(artifact)
        files = {name: entry.sha256 for name, entry in manifest.files.items()}
        trusted = store.trusted(here)
        source = EarlierRows(here.path, trusted, files)
        kind, _, key = next(
            name for name in manifest.sources.values() if name.startswith("ingest/")
        ).partition("/")
        snapshot = store.find(kind, key)
    except (StorageError, OSError, StopIteration) as error:
        log.info("%s/%s cannot be used: %s", artifact.kind, artifact.key, error)
        return None
    if snapshot is None:
        log.info("%s/%s cannot be used: its snapshot is gone", artifact.kind, artifact.key)
        return None
    images = ViewSpec(dataset, split, "people").of(snapshot.path).images
    table = pa.table({"image_id": images["image_id"], "content": pa.array(contents(images), pa.string())})
    return Earlier(here, source, trusted, table, np.empty(0, np.int64))
