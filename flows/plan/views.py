"""Views as inputs of stages: what of a snapshot a stage depends on, and the scenes that it works on."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import CatalogError
from flows.plan.memo import Memo
from storage.digests import digest_parts
from storage.store import Artifact, Store

if TYPE_CHECKING:
    from data_catalog.views import Use, View
    from personsearch_core.data.scenes import Scene

log = logging.getLogger(__name__)


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
        from data_catalog.snapshot import Snapshot
        from data_catalog.views import View

        return View(Snapshot(snapshot), self.split, self.min_height)


@dataclass(frozen=True)
class SnapshotView:
    """A view of an ingested dataset, and the root of its image files."""

    snapshot: Artifact
    spec: ViewSpec
    root: Path

    @property
    def view(self) -> View:
        return self.spec.of(self.snapshot.path)

    def scenes(self) -> list[Scene]:
        """See `read_scenes`."""
        return read_scenes(self.snapshot.path, self.spec, self.root)


def view_digest(artifact: Artifact, spec: ViewSpec, store: Store) -> str:
    """Digest of what the stage takes of the snapshot; remembered beside the store's artifacts.

    Only where it is not remembered, the snapshot is read, and brought to this machine first.
    Raises CatalogError when the split or a protocol is not there, or pixels are needed and were left out.
    """
    parts = {"snapshot": artifact.content_digest, "spec": asdict(spec) | {"dataset": None}}
    memo = Memo(store.root, "views", parts)
    if (remembered := memo.read()) is not None:
        return remembered
    digest = _digest(store.here(artifact).path, spec)
    memo.write(digest)
    return digest


def read_scenes(snapshot: Path, spec: ViewSpec, root: Path) -> list[Scene]:
    """The view's images with their boxes, in order, as the core takes them.

    Raises CatalogError for an image whose size is unknown: the snapshot was made without images.
    """
    import numpy as np
    import pyarrow.compute as pc

    from data_catalog.images import ignores_exif
    from data_catalog.row_tables import corners
    from personsearch_core.data.scenes import Scene

    view = spec.of(snapshot)
    images, boxes = view.images, view.boxes
    if images["width"].null_count or images["height"].null_count:
        raise CatalogError(
            f"{spec.dataset}: its snapshot was built without images; ingest it without --no-images"
        )
    all_boxes, ignore = corners(boxes), boxes["ignore"].to_numpy()
    box_ids, person_ids = boxes["box_id"].to_pylist(), boxes["person_id"].to_pylist()
    owner = pc.index_in(boxes["image_id"], value_set=images["image_id"]).to_numpy()
    bounds = np.searchsorted(owner, np.arange(len(images) + 1))
    columns = ("image_id", "rel_path", "width", "height", "camera_id", "decoding")
    scenes = []
    for row, values in enumerate(zip(*(images[name].to_pylist() for name in columns), strict=True)):
        image_id, rel_path, width, height, camera_id, decoding = values
        part = slice(bounds[row], bounds[row + 1])
        scenes.append(
            Scene(
                image_id=image_id,
                path=str(root / rel_path),
                width=width,
                height=height,
                boxes=all_boxes[part],
                ignore=ignore[part],
                box_ids=tuple(box_ids[part]),
                person_ids=tuple(person_ids[part]),
                source=spec.dataset,
                camera_id=camera_id,
                apply_exif=not ignores_exif(decoding),
            )
        )
    return scenes


def _digest(snapshot: Path, spec: ViewSpec) -> str:
    return digest_parts(spec.of(snapshot).digests(spec.use, spec.protocols))
