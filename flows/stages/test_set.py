"""A test view's tables as the arrays that evaluators take: images, people and queries become numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.errors import CatalogError
from data_catalog.snapshot import Snapshot
from data_catalog.views import ProtocolView, View, protocol_view
from flows.stages.detections import DETECTION, QUERY, ROWS, TRUTH
from flows.stages.gallery import EMBEDDINGS
from flows.views import ViewSpec
from personsearch_core.evaluation.injection import inject_ground_truth
from personsearch_core.evaluation.records import UNLABELLED, Detections, GalleryLists, GroundTruth, Queries

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class TestSet:
    __test__ = False  # its name is the field's; pytest shall not collect it
    """One test view with the embeddings of a gallery artifact."""

    gallery: Path
    snapshot: Path
    spec: ViewSpec
    embeddings_file: str = EMBEDDINGS

    @cached_property
    def image_ids(self) -> pa.Array:
        """The view's images; their positions are the numbers that evaluators see."""
        return self._view.images["image_id"].combine_chunks()

    @cached_property
    def cameras(self) -> np.ndarray:
        """(n_images,) the camera of each image, -1 where unknown."""
        return pc.fill_null(self._view.images["camera_id"], -1).to_numpy().astype(np.int64)

    @cached_property
    def detections(self) -> Detections:
        rows = self._rows(DETECTION)
        return Detections(
            self._image_numbers(rows["image_id"]),
            corners(rows),
            rows["score"].to_numpy(),
            self._described(rows),
        )

    @cached_property
    def truth_embeddings(self) -> np.ndarray:
        """(n, d) of the boxes of `truth`, in their order."""
        rows = self._rows(TRUTH)
        order = pc.index_in(self._view.boxes["box_id"], value_set=rows["box_id"]).to_numpy(
            zero_copy_only=False
        )
        return self._described(rows)[order]

    @cached_property
    def truth(self) -> GroundTruth:
        boxes = self._view.boxes
        return GroundTruth(
            self._image_numbers(boxes["image_id"]),
            corners(boxes),
            self._person_numbers(boxes["person_id"]),
            boxes["ignore"].to_numpy(),
        )

    def truth_as_detections(self) -> Detections:
        """Ground-truth boxes in the place of detections, each with score 1 (ground-truth injection)."""
        return inject_ground_truth(self.truth, self.truth_embeddings)

    def protocol(self, name: str) -> ProtocolView:
        return protocol_view(Snapshot(self.snapshot), name)

    def queries(self, protocol: ProtocolView) -> Queries:
        """The protocol's queries with their embeddings."""
        table = protocol.queries
        rows = self._rows(QUERY)
        place = {key: number for number, key in enumerate(_box_keys(rows))}
        wanted = [place[key] for key in _box_keys(table)]
        return Queries(
            self._image_numbers(table["image_id"]),
            corners(table),
            self._described(rows)[wanted],
            self._person_numbers(table["person_id"]),
        )

    def lists(self, protocol: ProtocolView) -> GalleryLists:
        """The protocol's galleries; CatalogError where a rule gives them, not a file."""
        table = protocol.gallery
        if not len(table):
            raise CatalogError(f"protocol {protocol.protocol} of {self.spec.dataset} lists no gallery images")
        query = pc.index_in(table["query_id"].cast(pa.string()), value_set=protocol.queries["query_id"])
        boxes = np.stack([pc.fill_null(table[name], 0.0).to_numpy() for name in _CORNERS], axis=1)
        return GalleryLists.from_rows(
            query.to_numpy(),
            self._image_numbers(table["image_id"]),
            table["is_positive"].to_numpy(),
            boxes,
            len(protocol.queries),
        )

    @cached_property
    def _view(self) -> View:
        return self.spec.of(self.snapshot)

    @cached_property
    def _all_rows(self) -> pa.Table:
        return pq.read_table(self.gallery / ROWS)

    @cached_property
    def _embeddings(self) -> np.ndarray:
        return np.load(self.gallery / self.embeddings_file, mmap_mode="r")

    @cached_property
    def _people(self) -> pa.Array:
        return self._view.boxes["person_id"].unique().drop_null()

    def _rows(self, role: str) -> pa.Table:
        return self._all_rows.filter(pc.equal(self._all_rows["role"], role))

    def _described(self, rows: pa.Table) -> np.ndarray:
        return np.asarray(self._embeddings[rows["row"].to_numpy()])

    def _image_numbers(self, image_ids: pa.ChunkedArray) -> np.ndarray:
        numbers = pc.index_in(image_ids.cast(pa.string()), value_set=self.image_ids)
        if numbers.null_count:
            stranger = image_ids.filter(pc.is_null(numbers))[0].as_py()
            raise CatalogError(
                f"{self.spec.dataset}: image {stranger!r} of a protocol is not in split {self.spec.split!r}"
            )
        return numbers.to_numpy().astype(np.int64)

    def _person_numbers(self, person_ids: pa.ChunkedArray) -> np.ndarray:
        known = pc.index_in(person_ids, value_set=self._people)
        strangers = UNLABELLED - 1  # A query's person without any box in the split: equal to nobody.
        numbers = pc.if_else(pc.is_valid(person_ids), pc.fill_null(known, strangers), UNLABELLED)
        return numbers.to_numpy().astype(np.int64)


def corners(table: pa.Table) -> np.ndarray:
    """(n, 4) float32 from columns x1, y1, x2, y2."""
    return np.stack([table[name].to_numpy() for name in _CORNERS], axis=1)


def _box_keys(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(table[name].to_pylist() for name in ("image_id", *_CORNERS)), strict=True))
