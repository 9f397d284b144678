"""A test view's tables as the arrays that `evaluate` takes: images, people and queries become numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.errors import CatalogError
from data_catalog.row_tables import COORDINATES, corners
from data_catalog.views import ProtocolView, View, protocol_view
from flows.plan.views import ViewSpec
from flows.stages.detected_blocks import DETECTION, QUERY, TRUTH
from flows.stages.detections import ROWS
from flows.stages.gallery import EMBEDDINGS
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.records import Detections, GalleryLists, GroundTruth, Queries
from personsearch_core.identities import UNLABELLED
from personsearch_core.recipes import EvaluationRecipe

_BOX = ["image_id", *COORDINATES]


@dataclass(frozen=True)
class TestSet:
    """A test view with the embeddings of a gallery artifact."""

    __test__ = False  # its name is the field's; pytest must not collect it

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
        return np.asarray(pc.fill_null(self._view.images["camera_id"], -1).to_numpy(), np.int64)

    @cached_property
    def detections(self) -> Detections:
        rows = self._rows(DETECTION)
        return Detections(
            self._image_numbers(rows["image_id"]),
            corners(rows),
            rows["score"].to_numpy(),
            self._embeddings_of(rows),
        )

    @cached_property
    def truth_embeddings(self) -> np.ndarray:
        """(n, d) of the boxes of `truth`, in their order."""
        rows = self._rows(TRUTH)
        order = pc.index_in(self._boxes["box_id"], value_set=rows["box_id"]).to_numpy(zero_copy_only=False)
        return np.asarray(self._embeddings_of(rows)[order])

    @cached_property
    def truth(self) -> GroundTruth:
        boxes = self._boxes
        return GroundTruth(
            self._image_numbers(boxes["image_id"]),
            corners(boxes),
            self._person_numbers(boxes["person_id"]),
            boxes["ignore"].to_numpy(),
        )

    def inputs(self, recipe: EvaluationRecipe) -> EvaluationInputs:
        """What `evaluate` takes for a recipe."""
        return EvaluationInputs(
            self.detections,
            len(self.image_ids),
            _Protocols(self.search_protocol),
            self.truth,
            self.truth_embeddings if recipe.ground_truth_boxes or recipe.readings else None,
            self.cameras,
        )

    def query_ids(self, protocol: str) -> pa.ChunkedArray:
        """(q,) what the protocol calls its queries, in their order."""
        of_protocol = pc.field("protocol") == protocol
        return self._view.snapshot.table("queries", ["query_id"], filter=of_protocol)["query_id"]

    def search_protocol(self, name: str) -> SearchProtocol:
        """A protocol's queries with their embeddings, and its galleries where no rule gives them."""
        protocol = protocol_view(self._view.snapshot, name)
        return SearchProtocol(self._queries(protocol), self._lists(protocol))

    def _queries(self, protocol: ProtocolView) -> Queries:
        """One object for all protocols that ask for the same people: what it is compared with is shared."""
        asked = protocol.queries.select([*_BOX, "person_id"])
        for known, queries in self._known_queries:
            if asked.equals(known):
                return queries
        image = self._image_numbers(asked["image_id"])
        embedded = np.asarray(self._embeddings[self._rows_of_queries(protocol.queries)])
        queries = Queries(image, corners(asked), embedded, self._person_numbers(asked["person_id"]))
        self._known_queries.append((asked, queries))
        return queries

    def _lists(self, protocol: ProtocolView) -> GalleryLists | None:
        table = protocol.gallery
        if not len(table):
            return None
        query = pc.index_in(table["query_id"].cast(pa.string()), value_set=protocol.queries["query_id"])
        boxes = np.stack([pc.fill_null(table[name], 0.0).to_numpy() for name in COORDINATES], axis=1)
        return GalleryLists.from_rows(
            query.to_numpy(),
            self._image_numbers(table["image_id"]),
            table["is_positive"].to_numpy(),
            boxes,
            len(protocol.queries),
        )

    @cached_property
    def _known_queries(self) -> list[tuple[pa.Table, Queries]]:
        return []

    def _rows_of_queries(self, queries: pa.Table) -> np.ndarray:
        """(q,) the gallery's row of each query; it has one for each distinct box."""
        rows = self._rows(QUERY).select([*_BOX, "row"])
        found = queries.select([*_BOX, "query_id"]).join(rows, _BOX, join_type="inner")
        place = pc.index_in(queries["query_id"], value_set=found["query_id"].combine_chunks())
        if place.null_count:
            raise CatalogError(
                f"{self.spec.dataset}: the gallery was built for other query boxes than the snapshot's; "
                "rebuild it with --from detections"
            )
        return np.asarray(found["row"].to_numpy()[place.to_numpy()])

    @cached_property
    def _view(self) -> View:
        return self.spec.of(self.snapshot)

    @cached_property
    def _boxes(self) -> pa.Table:
        """The view's boxes, without those of forgotten people: neither they nor what was detected there are
        among the gallery's rows."""
        return self._view.boxes.filter(pc.invert(self._view.forgotten))

    @cached_property
    def _all_rows(self) -> pa.Table:
        return pq.read_table(self.gallery / ROWS)

    @cached_property
    def _embeddings(self) -> np.ndarray:
        found: np.ndarray = np.load(self.gallery / self.embeddings_file, mmap_mode="r")
        return found

    @cached_property
    def _people(self) -> pa.Array:
        return self._boxes["person_id"].unique().drop_null()

    def _rows(self, role: str) -> pa.Table:
        return self._all_rows.filter(pc.equal(self._all_rows["role"], role))

    def _embeddings_of(self, rows: pa.Table) -> np.ndarray:
        return np.asarray(self._embeddings[rows["row"].to_numpy()])

    def _image_numbers(self, image_ids: pa.ChunkedArray) -> np.ndarray:
        numbers = pc.index_in(image_ids.cast(pa.string()), value_set=self.image_ids)
        if numbers.null_count:
            stranger = image_ids.filter(pc.is_null(numbers))[0].as_py()
            raise CatalogError(
                f"{self.spec.dataset}: image {stranger!r} of a protocol is not in split {self.spec.split!r}"
            )
        return np.asarray(numbers.to_numpy(), np.int64)

    def _person_numbers(self, person_ids: pa.ChunkedArray) -> np.ndarray:
        known = pc.index_in(person_ids, value_set=self._people)
        strangers = UNLABELLED - 1  # A query's person without any box in the split: equal to no other.
        numbers = pc.if_else(pc.is_valid(person_ids), pc.fill_null(known, strangers), UNLABELLED)
        return np.asarray(numbers.to_numpy(), np.int64)


class _Protocols(dict[str, SearchProtocol]):
    """Read when they are asked for, and not kept: the lists of a large protocol take memory."""

    def __init__(self, read: Callable[[str], SearchProtocol]) -> None:
        self._read = read

    def __missing__(self, name: str) -> SearchProtocol:
        return self._read(name)
