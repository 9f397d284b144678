"""Who is on each row of a feature store, and which people are held out of training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
    """Who is on each of the n rows of a feature store, as numbers.

    Parameters
    ----------
    label
        (n,) index into `names`, or `UNLABELLED`.
    image, box
        (n,) equal where rows show the same image, the same box.
    plain
        (n,) False for mirrored and jittered views of a box.
    names
        Person ids of the labels.

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
        )


@dataclass(frozen=True)
class IdentitySplit:
    """Row numbers to train on, and to validate on: the plain views of held-out people."""

    training: IntArray
    held_out: IntArray


def hold_out_identities(labels: ReidLabels, part: float, seed: int) -> IdentitySplit:
    """Hold out a part of the identities, together with every image they appear in.

    Identities that share an image, directly or through others, are held out together or not at all: neither a
    held-out person nor the scene around one is trained on. Whole groups are taken in a seeded order while
    they fit.

    Parameters
    ----------
    labels
        The rows of a feature store.
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
        If no group fits, or if fewer than two people would be held out.

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
    known = labels.label != UNLABELLED
    n_identities = len(labels.names)
    group = _groups(labels.label[known], labels.image[known], n_identities)
    sizes = np.bincount(group)
    wanted = round(part * n_identities)
    taken = _fill(np.random.default_rng((seed, 1)).permutation(len(sizes)), sizes, wanted)
    if sizes[taken].sum() < 2:
        raise PersonSearchError(
            f"held_out_identities={part} asks for {wanted} of {n_identities} identities, but people who "
            f"share images form {len(sizes)} groups, the smallest of {sizes.min(initial=0)}, the largest of "
            f"{sizes.max(initial=0)}: no two people fit. Hold out a larger part, or 0"
        )
    if sizes[taken].sum() < 0.5 * wanted:
        logger.warning(
            "%d identities are held out instead of %d: people who share images stay together",
            sizes[taken].sum(),
            wanted,
        )
    is_held_out = np.isin(group, taken)
    of_held_out = np.zeros(len(labels), dtype=bool)
    of_held_out[known] = is_held_out[labels.label[known]]
    in_their_images = np.isin(labels.image, labels.image[of_held_out])
    return IdentitySplit(np.flatnonzero(~in_their_images), np.flatnonzero(of_held_out & labels.plain))


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

    n_images = int(image.max(initial=-1)) + 1
    size = n_identities + n_images
    links = coo_array((np.ones(len(label), bool), (label, n_identities + image)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    _, group = np.unique(component[:n_identities], return_inverse=True)
    return group.astype(np.int64)


def _numbered(names: Sequence[str]) -> IntArray:
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.int64)
