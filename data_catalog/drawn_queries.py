"""Queries by rule, for a dataset that brings identities and no protocol; see `rules.QueryRule`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import CatalogError
from data_catalog.name_hashes import hash_names, mix
from data_catalog.row_tables import COORDINATES, one_value
from data_catalog.rules import DRAWN, LEFT_OUT, QueryRule
from data_catalog.schema import GALLERY, QUERIES, SCOPE_SEQUENCE

if TYPE_CHECKING:
    import pyarrow.dataset as ds

FEWEST_IDENTITIES = 2
"""Finding the only person of a split is not a search."""
MOST_GALLERY_ROWS = 200_000_000
_BLOCK = 2_000_000
"""Gallery rows that are made at once, unless a single query has more."""
_NO_CAMERA = -1


@dataclass(frozen=True)
class DrawnProtocol:
    """The rows of the protocol `drawn`.

    `gallery` yields tables; none where the gallery of every query is its split without its own image.
    """

    queries: pa.Table
    gallery: Iterator[pa.Table]


def draw_queries(boxes: ds.Dataset, images: pa.Table, published: pa.Table, rule: QueryRule) -> DrawnProtocol:
    """Draw queries among the boxes of known people of one split.

    `images` are all of the dataset's; `published` the queries that its files bring, of which there must be
    none.

    Raises:
        CatalogError: when the dataset brings queries, or too few identities fit the rule.
    """
    if len(published):
        protocols = ", ".join(sorted(published["protocol"].unique().to_pylist()))
        raise CatalogError(
            f"queries: the dataset brings its own ({protocols}), so none are drawn: leave the rule out"
        )
    split = _split_of(images, rule)
    seen = _Sightings(boxes, images, split)
    chosen = seen.by_name(_choose(seen, rule))
    return DrawnProtocol(_query_rows(seen, chosen), _gallery_rows(seen, chosen))


def _split_of(images: pa.Table, rule: QueryRule) -> str:
    there = sorted(set(images["split"].unique().to_pylist()) - {LEFT_OUT})
    if rule.split is None and len(there) > 1 and "test" not in there:
        raise CatalogError(
            f"queries: name the split that they are drawn from (split: NAME): {', '.join(there)}"
        )
    split = rule.split or ("test" if "test" in there else there[0] if there else "test")
    if split not in there:
        raise CatalogError(f"queries: there are no images in split {split!r}; there is: {', '.join(there)}")
    return split


class _Sightings:
    """Who is seen in which images of a split: one row for each identity and image, by both.

    `who`, `image` (n,) number identities and rows of `images`; `box` (n,) is the row of the scan.
    """

    def __init__(self, boxes: ds.Dataset, images: pa.Table, split: str) -> None:
        self.split = split
        self.images = images
        wanted = (pc.field("split") == split) & pc.field("person_id").is_valid() & ~pc.field("ignore")
        self._boxes, self._wanted = boxes, wanted
        rows = boxes.to_table(columns=["image_id", "person_id", "person_scope"], filter=wanted)
        image = pc.index_in(rows["image_id"], value_set=images["image_id"].combine_chunks())
        image = pc.fill_null(image, 0).to_numpy().astype(np.int64)  # unknown images end the ingest elsewhere
        person = rows["person_id"].combine_chunks().dictionary_encode()
        scoped = pc.equal(pc.fill_null(rows["person_scope"].cast(pa.string()), ""), SCOPE_SEQUENCE).to_numpy()
        if (scoped & (self.sequences[image] < 0)).any():
            raise CatalogError(
                "queries: identities hold within a sequence only, and their images name none: the adapter "
                "has to give sequence_id"
            )
        within = np.where(scoped, self.sequences[image], -1)
        who = person.indices.to_numpy().astype(np.int64) * (len(self.sequence_names) + 1) + within + 1
        _, who = np.unique(who, return_inverse=True)
        _, first = np.unique(who * max(len(images), 1) + image, return_index=True)
        self.box, self.who, self.image, self.scoped = first, who[first], image[first], scoped[first]
        self._people, self._person = person.dictionary, person.indices.to_numpy()[first]
        self.n_identities = int(self.who.max()) + 1 if len(first) else 0

    @cached_property
    def sequence_names(self) -> pa.Array:
        return self.images["sequence_id"].cast(pa.string()).unique().drop_null()

    @cached_property
    def sequences(self) -> np.ndarray:
        """(n_images,) the sequence of each image, -1 where it is in none."""
        found = pc.index_in(self.images["sequence_id"].cast(pa.string()), value_set=self.sequence_names)
        return np.asarray(pc.fill_null(found, -1), np.int64)

    @cached_property
    def cameras(self) -> np.ndarray:
        """(n,) the camera of each row, -1 where unknown."""
        camera = np.asarray(pc.fill_null(self.images["camera_id"], _NO_CAMERA), np.int64)
        return np.asarray(camera[self.image])

    def order(self, seed: int) -> np.ndarray:
        """(n,) a number for each row that its identity, its image and the seed decide on alone."""
        of_person = hash_names(self._people, seed)[self._person]
        return mix(of_person ^ hash_names(self.images["image_id"], seed + 1)[self.image])

    def by_name(self, at: np.ndarray) -> np.ndarray:
        """These rows by the names of their identities, then of their images."""
        image_id = self.images["image_id"].take(pa.array(self.image[at]))
        names = pa.table({"person": self._people.take(pa.array(self._person[at])), "image": image_id})
        keys = [("person", "ascending"), ("image", "ascending")]
        return np.asarray(at[pc.sort_indices(names, sort_keys=keys).to_numpy()])

    def rows(self, at: np.ndarray, columns: list[str]) -> pa.Table:
        """Columns of the boxes of some rows, in their order."""
        box = self.box[at]
        order = np.argsort(box, kind="stable")
        scanner = self._boxes.scanner(columns=columns, filter=self._wanted)
        return scanner.take(pa.array(box[order])).take(pa.array(np.argsort(order, kind="stable")))


def _choose(seen: _Sightings, rule: QueryRule) -> np.ndarray:
    """Rows of `seen` that become queries."""
    n_images = np.bincount(seen.who, minlength=seen.n_identities)
    known = seen.cameras != _NO_CAMERA
    pairs = np.unique(np.stack([seen.who[known], seen.cameras[known]]), axis=1)
    n_cameras = np.bincount(pairs[0], minlength=seen.n_identities)
    enough = n_images >= rule.at_least_images
    asked = enough & (n_cameras > 1) if rule.cross_camera is True else enough
    if asked.sum() < FEWEST_IDENTITIES:
        raise CatalogError(_too_few(seen, rule, n_images, int(enough.sum())))
    usable = asked[seen.who]
    spread = np.zeros(len(seen.who), np.int64)
    if rule.cross_camera:
        across = n_cameras[seen.who] > 1
        usable &= known | ~across
        spread = np.where(across, seen.cameras, 0)
    at = np.flatnonzero(usable)
    number = seen.order(rule.seed)[at]
    turn = _place_in_group(number, (seen.who[at], spread[at]))
    place = _place_in_group(number, (seen.who[at],), turn)
    return at[place < rule.per_identity]


def _place_in_group(
    number: np.ndarray, group: tuple[np.ndarray, ...], before: np.ndarray | None = None
) -> np.ndarray:
    """The place of each row in its group, by `before`, then `number` -> (n,)."""
    keys = (number, *(() if before is None else (before,)), *group[::-1])
    order = np.lexsort(keys)
    starts = np.zeros(len(order), bool)
    starts[:1] = True
    for column in group:
        starts[1:] |= np.diff(column[order]) != 0
    first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - first
    return place


def _too_few(seen: _Sightings, rule: QueryRule, n_images: np.ndarray, enough: int) -> str:
    if not seen.n_identities:
        return f"queries: no box of split {seen.split!r} has an identity, so nothing can be searched"
    if rule.cross_camera is True and enough >= FEWEST_IDENTITIES:
        return (
            f"queries: fewer than {FEWEST_IDENTITIES} identities of split {seen.split!r} were seen by "
            "several cameras: set cross_camera: auto"
        )
    return (
        f"queries: {enough} of {seen.n_identities} identities of split {seen.split!r} are in "
        f"{rule.at_least_images} images or more, and a search needs {FEWEST_IDENTITIES}; the "
        f"most that one is in is {n_images.max()}: lower at_least_images"
    )


def _query_rows(seen: _Sightings, chosen: np.ndarray) -> pa.Table:
    """`schema.QUERIES`; a query is named as its box is."""
    columns = ["box_id", "image_id", "person_id", "source_unit", "source_file", "source_row", *COORDINATES]
    rows = seen.rows(chosen, columns)
    given = {"protocol": one_value(DRAWN, len(rows)), "query_id": rows["box_id"]}
    return pa.Table.from_arrays(
        [given[f.name] if f.name in given else rows[f.name] for f in QUERIES], schema=QUERIES
    ).unify_dictionaries()


def _gallery_rows(seen: _Sightings, chosen: np.ndarray) -> Iterator[pa.Table]:
    """`schema.GALLERY`, in the order of the queries; nothing where every identity holds throughout."""
    if not seen.scoped[chosen].any():
        return
    of_split = np.flatnonzero(pc.equal(seen.images["split"].cast(pa.string()), seen.split).to_numpy())
    by_sequence = of_split[np.argsort(seen.sequences[of_split], kind="stable")]
    sequence = np.where(seen.scoped[chosen], seen.sequences[seen.image[chosen]], -2)
    starts = np.searchsorted(seen.sequences[by_sequence], sequence, side="left")
    stops = np.searchsorted(seen.sequences[by_sequence], sequence, side="right")
    starts[sequence == -2], stops[sequence == -2] = 0, len(by_sequence)
    sizes = stops - starts
    if sizes.sum() > MOST_GALLERY_ROWS:
        raise CatalogError(
            f"queries: their galleries would have {sizes.sum():,} rows: lower per_identity, or raise "
            "at_least_images"
        )
    block = (np.cumsum(sizes) - 1) // _BLOCK
    for number in np.unique(block):
        at = np.flatnonzero(block == number)
        query = np.repeat(at, sizes[at])
        position = np.arange(len(query)) - np.repeat(np.cumsum(sizes[at]) - sizes[at], sizes[at])
        image = by_sequence[np.repeat(starts[at], sizes[at]) + position]
        others = image != seen.image[chosen[query]]
        yield _gallery_table(seen, chosen, query[others], image[others])


def _gallery_table(seen: _Sightings, chosen: np.ndarray, query: np.ndarray, image: np.ndarray) -> pa.Table:
    """Rows for `query` (n,), places in `chosen`, and `image` (n,); positive ones with the person's box."""
    key = seen.who * len(seen.images) + seen.image
    wanted = seen.who[chosen[query]] * len(seen.images) + image
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    positive = key[place] == wanted
    shown, of_positive = np.unique(place[positive], return_inverse=True)
    corners = seen.rows(shown, list(COORDINATES))
    at = np.full(len(query), -1)
    at[positive] = of_positive
    at_or_none = pa.array(at, mask=~positive)
    names = seen.rows(chosen, ["box_id", "source_unit"])
    images, image_code = np.unique(image, return_inverse=True)
    code = pa.array(query.astype(np.int32))
    columns = {
        "protocol": one_value(DRAWN, len(query)),
        "query_id": pa.DictionaryArray.from_arrays(code, names["box_id"].combine_chunks()),
        "image_id": pa.DictionaryArray.from_arrays(
            pa.array(image_code.astype(np.int32)),
            seen.images["image_id"].take(pa.array(images)).combine_chunks(),
        ),
        "is_positive": pa.array(positive),
        **{name: corners[name].take(at_or_none) for name in COORDINATES},
        "source_unit": names["source_unit"].cast(pa.string()).take(code).combine_chunks().dictionary_encode(),
    }
    return pa.Table.from_arrays([columns[f.name] for f in GALLERY], schema=GALLERY)
