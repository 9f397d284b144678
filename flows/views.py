"""Views as inputs of stages: what of a snapshot a stage depends on, and the scenes that it works on.

A digest covers the columns that the stage uses and nothing else, so that a new protocol file, a test image or
a renamed dataset leaves the artifacts of training as they are.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.row_digests import digest_rows
from data_catalog.snapshot import Snapshot
from data_catalog.views import BoxFilter, View, protocol_view
from flows.memo import Memo
from storage.artifacts import Artifact, LocalStore
from storage.digests import digest_parts

if TYPE_CHECKING:
    from personsearch_core.data.scenes import Scene

log = logging.getLogger(__name__)

Use = Literal["boxes", "people", "test", "truth"]
"""What a stage takes of a split: pixels and boxes; these and identities; these and the query boxes; or boxes,
identities, queries and galleries without pixels."""

_IMAGE_COLUMNS = ["image_id", "width", "height"]
_BOX_COLUMNS = ["image_id", "x1", "y1", "x2", "y2", "ignore"]
_PEOPLE_COLUMNS = [*_BOX_COLUMNS, "box_id", "person_id"]
_QUERY_BOX = ["image_id", "x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class ViewSpec:
    """A split of a dataset as one stage uses it; `dataset` is its name in the config, for messages."""

    dataset: str
    split: str
    use: Use
    min_height: float | None = None
    protocols: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ViewSpec:
        """From what `dataclasses.asdict` gave and JSON carried."""
        return cls(**{**fields, "protocols": tuple(fields["protocols"])})

    def of(self, snapshot: Path) -> View:
        """The view on a snapshot's directory."""
        return View(Snapshot(snapshot), self.split, BoxFilter(min_height=self.min_height))


def view_digest(artifact: Artifact, spec: ViewSpec, store: LocalStore) -> str:
    """Digest of what the stage takes of the snapshot; remembered beside the store's artifacts.

    Only where it is not remembered, the snapshot is read, and brought to this machine first.
    Raises CatalogError when the split or a protocol is not there, or pixels are needed and were left out.
    """
    parts = {"snapshot": artifact.content_digest, "spec": asdict(spec) | {"dataset": None}}
    memo = Memo(store.root, "views", parts)
    if (remembered := memo.read()) is not None:
        return remembered
    digest = _digest(store.local_path(artifact.kind, artifact.key), spec)
    memo.write(digest)
    return digest


def query_boxes(snapshot: Snapshot, image_ids: pa.ChunkedArray) -> pa.Table:
    """The distinct boxes that any protocol asks for in these images: image_id, x1 .. y2, in a fixed order."""
    queries = snapshot.table("queries", _QUERY_BOX)
    mask = pc.is_in(queries["image_id"], value_set=image_ids)
    distinct = queries.filter(mask).group_by(_QUERY_BOX).aggregate([])
    return distinct.sort_by([(name, "ascending") for name in _QUERY_BOX])


def read_scenes(snapshot: Path, spec: ViewSpec, root: Path) -> list[Scene]:
    """The view's images with their boxes, in order, as the core takes them.

    Raises CatalogError for an image whose size is unknown: the snapshot was made without images.
    """
    from personsearch_core.data.scenes import Scene

    view = spec.of(snapshot)
    images, boxes = view.images, view.boxes
    if images["width"].null_count or images["height"].null_count:
        raise CatalogError(f"{spec.dataset}: the snapshot was made without images; ingest it with them")
    corners = np.stack([boxes[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    ignore = boxes["ignore"].to_numpy()
    box_ids, person_ids = boxes["box_id"].to_pylist(), boxes["person_id"].to_pylist()
    owner = pc.index_in(boxes["image_id"], value_set=images["image_id"]).to_numpy()
    bounds = np.searchsorted(owner, np.arange(len(images) + 1))
    columns = ("image_id", "rel_path", "width", "height", "camera_id")
    scenes = []
    for row, values in enumerate(zip(*(images[name].to_pylist() for name in columns), strict=True)):
        image_id, rel_path, width, height, camera_id = values
        part = slice(bounds[row], bounds[row + 1])
        scenes.append(
            Scene(
                image_id=image_id,
                path=str(root / rel_path),
                width=width,
                height=height,
                boxes=corners[part],
                ignore=ignore[part],
                box_ids=tuple(box_ids[part]),
                person_ids=tuple(person_ids[part]),
                source=spec.dataset,
                camera_id=camera_id,
            )
        )
    return scenes


def _digest(snapshot: Path, spec: ViewSpec) -> str:
    view = spec.of(snapshot)
    images = view.images
    parts: dict[str, str] = {}
    if spec.use == "truth":
        parts["images"] = digest_rows(images.select(["image_id", "camera_id"]))
        for protocol in spec.protocols:
            parts[protocol] = protocol_view(view.snapshot, protocol).digest()
    else:
        if images["sha256"].null_count:
            raise CatalogError(
                f"{spec.dataset}: its snapshot was made without images, so it cannot be used for training or "
                "detection; ingest it with its images"
            )
        parts["images"] = digest_rows(images.select([*_IMAGE_COLUMNS, "sha256"]))
    if spec.use == "test":
        parts["queries"] = digest_rows(query_boxes(view.snapshot, images["image_id"]))
    parts["boxes"] = digest_rows(view.boxes.select(_BOX_COLUMNS if spec.use == "boxes" else _PEOPLE_COLUMNS))
    return digest_parts(parts)
