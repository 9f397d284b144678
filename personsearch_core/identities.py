"""Who is on each row of a feature store, and which people are held out of training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from personsearch_core.errors import PersonSearchError

logger = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]
UNLABELLED = -1
"""The label of an unknown person in arrays; in the catalog it is null."""


@dataclass(frozen=True)
class ReidLabels:
    """Who is on each of the n rows of one feature store, or of several one after the other, as numbers.

    Parameters
    ----------
    label
        (n,) index into `names`, or `UNLABELLED`.
    image, box
        (n,) equal where rows show the same image, the same box.
    plain
        (n,) False for mirrored and jittered views of a box.
    names
        Person ids of the labels; of several stores `dataset/id`.
    source
        (n,) index into `sources`.
    sources
        Names of the datasets, in the order of their rows and of their labels; of a single store "".

    Examples
    --------
    >>> labels = ReidLabels.from_columns(["bob", None, "ann", "bob"], ["i1", "i1", "i2", "i2"])
    >>> labels.label.tolist(), labels.names
    ([1, -1, 0, 1], ('ann', 'bob'))
    """

    label: IntArray
    image: IntArray
    box: IntArray
    plain: npt.NDArray[np.bool_]
    names: tuple[str, ...]
    source: IntArray
    sources: tuple[str, ...] = ("",)

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def from_columns(
        cls,
        person_ids: Sequence[str | None],
        image_ids: Sequence[str],
        box_ids: Sequence[str] | None = None,
        views: Sequence[str] | None = None,
    ) -> ReidLabels:
        """Labels from the columns of a store's index.

        Names are compared as they are: people, and images, of different datasets must have different ones.

        Parameters
        ----------
        person_ids
            The person on each row; None if unknown.
        image_ids
            The image of each row.
        box_ids
            The box of each row; by default each row shows a box of its own.
        views
            `plain`, `mirrored` or `jittered`; by default all rows are plain.

        Returns
        -------
        ReidLabels

        Raises
        ------
        PersonSearchError
            If the columns differ in length.
        """
        count = len(person_ids)
        for name, column in (("image_ids", image_ids), ("box_ids", box_ids), ("views", views)):
            if column is not None and len(column) != count:
                raise PersonSearchError(f"{name} has {len(column)} rows, person_ids has {count}")
        known = np.array([person is not None for person in person_ids], dtype=bool)
        names, numbers = np.unique(
            np.array([p for p in person_ids if p is not None], str), return_inverse=True
        )
        label = np.full(count, UNLABELLED, dtype=np.int64)
        label[known] = numbers
        return cls(
            label=label,
            image=_numbered(image_ids),
            box=np.arange(count) if box_ids is None else _numbered(box_ids),
            plain=np.array(
                [view == "plain" for view in views] if views is not None else np.ones(count), bool
            ),
            names=tuple(names.tolist()),
            source=np.zeros(count, np.int64),
        )

    @classmethod
    def joined(cls, parts: Mapping[str, ReidLabels]) -> ReidLabels:
        """Labels of the rows of several datasets, one dataset after the other.

        Nothing is shared: person 7 of one dataset is not person 7 of another, nor are their images the same.
        Labels count the people of the first dataset, in the order of their ids, then those of the second.

        Examples
        --------
        >>> of_a = ReidLabels.from_columns(["7", None, "8"], ["1", "1", "2"])
        >>> of_b = ReidLabels.from_columns(["7", "7"], ["1", "2"])
        >>> both = ReidLabels.joined({"a": of_a, "b": of_b})
        >>> both.label.tolist(), both.image.tolist(), both.names
        ([0, -1, 1, 2, 2], [0, 0, 1, 2, 3], ('a/7', 'a/8', 'b/7'))
        """
        each = list(parts.values())
        people = [0, *np.cumsum([len(part.names) for part in each]).tolist()]
        images = [0, *np.cumsum([_count(part.image) for part in each]).tolist()]
        boxes = [0, *np.cumsum([_count(part.box) for part in each]).tolist()]
        label = [
            np.where(part.label == UNLABELLED, UNLABELLED, part.label + first)
            for part, first in zip(each, people, strict=False)
        ]
        return cls(
            label=np.concatenate(label),
            image=np.concatenate([part.image + first for part, first in zip(each, images, strict=False)]),
            box=np.concatenate([part.box + first for part, first in zip(each, boxes, strict=False)]),
            plain=np.concatenate([part.plain for part in each]),
            names=tuple(f"{dataset}/{name}" for dataset, part in parts.items() for name in part.names),
            source=np.repeat(np.arange(len(each)), [len(part) for part in each]),
            sources=tuple(parts),
        )

    def rows_of(self, source: int) -> IntArray:
        """Numbers of the rows of a dataset."""
        return np.flatnonzero(self.source == source)


@dataclass(frozen=True)
class IdentitySplit:
    """Row numbers to train on, and to validate on: the plain views of held-out people."""

    training: IntArray
    held_out: IntArray


def hold_out_identities(labels: ReidLabels, part: float, seed: int) -> IdentitySplit:
    """Hold out a part of the identities of each dataset, together with every image they appear in.

    Identities that share an image, directly or through others, are held out together or not at all: neither a
    held-out person nor the scene around one is trained on. Whole groups are taken in a seeded order while
    they fit. Of several datasets each is split as it would be alone.

    Parameters
    ----------
    labels
        The rows of one feature store or of several.
    part
        Fraction of the identities to hold out; 0 holds out none.
    seed
        Decides the order of the groups.

    Returns
    -------
    IdentitySplit

    Raises
    ------
    PersonSearchError
        If no group of a dataset fits, or if fewer than two of its people would be held out.

    Examples
    --------
    >>> people = [f"p{n // 2}" for n in range(20)]
    >>> labels = ReidLabels.from_columns(people, [f"image {n}" for n in range(20)])
    >>> split = hold_out_identities(labels, part=0.3, seed=0)
    >>> len(split.training), len(split.held_out)
    (14, 6)
    """
    if part == 0:
        return IdentitySplit(np.arange(len(labels)), np.empty(0, np.int64))
    splits = [_hold_out_of(labels, source, part, seed) for source in range(len(labels.sources))]
    return IdentitySplit(
        np.concatenate([split.training for split in splits]),
        np.concatenate([split.held_out for split in splits]),
    )


def _hold_out_of(labels: ReidLabels, source: int, part: float, seed: int) -> IdentitySplit:
    """The split of one dataset's rows."""
    rows = labels.rows_of(source)
    label, image = labels.label[rows], labels.image[rows]
    known = label != UNLABELLED
    people, person = np.unique(label[known], return_inverse=True)
    group = _groups(person, image[known], len(people))
    sizes = np.bincount(group)
    wanted = round(part * len(people))
    taken = _fill(np.random.default_rng((seed, 1)).permutation(len(sizes)), sizes, wanted)
    whose = f"{labels.sources[source]}: " if labels.sources[source] else ""
    if sizes[taken].sum() < 2:
        raise PersonSearchError(
            f"{whose}held_out_identities={part} asks for {wanted} of {len(people)} identities, but people "
            f"who share images form {len(sizes)} groups, the smallest of {sizes.min(initial=0)}, the largest "
            f"of {sizes.max(initial=0)}: no two people fit. Hold out a larger part, or 0"
        )
    if sizes[taken].sum() < 0.5 * wanted:
        logger.warning(
            "%s%d identities are held out instead of %d: people who share images stay together",
            whose,
            sizes[taken].sum(),
            wanted,
        )
    of_held_out = np.zeros(len(rows), dtype=bool)
    of_held_out[known] = np.isin(group, taken)[person]
    in_their_images = np.isin(image, image[of_held_out])
    return IdentitySplit(rows[~in_their_images], rows[of_held_out & labels.plain[rows]])


def _fill(order: IntArray, sizes: IntArray, wanted: int) -> IntArray:
    taken, total = [], 0
    for group in order:
        if total + sizes[group] <= wanted:
            taken.append(group)
            total += int(sizes[group])
    return np.array(taken, dtype=np.int64)


def _groups(label: IntArray, image: IntArray, n_identities: int) -> IntArray:
    """Group of each identity: connected components of the graph of identities and images."""
    # Not at the top: SciPy takes a while to import, and labels do not need it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_images = _count(image)
    size = n_identities + n_images
    links = coo_array((np.ones(len(label), bool), (label, n_identities + image)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    _, group = np.unique(component[:n_identities], return_inverse=True)
    return group.astype(np.int64)


def _count(numbers: IntArray) -> int:
    return int(numbers.max(initial=-1)) + 1


def _numbered(names: Sequence[str]) -> IntArray:
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.int64)
