"""P x K batches: P identities with K rows of each (Hermans et al. 2017, section 2)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from personsearch_core.amounts import Amount, per_epoch
from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import UNLABELLED, IntArray, ReidLabels

logger = logging.getLogger(__name__)


class PKSampler:
    """Batches of P identities x K rows each, followed by U unlabelled rows.

    An epoch shows every identity once, in an order drawn from (seed, epoch); the last batch is filled up with
    identities from the epoch's start. The rows of an identity in a batch show different boxes while there are
    enough; then further views of its boxes are used, and only then are rows repeated. An identity with a
    single row has no positive and is left out: `left_out` names it.

    Of several datasets an epoch shows as many identities as their amounts say: whole passes over a dataset's
    identities, and the rest without repetition. Each batch has its share of each dataset, off by fewer than
    two identities, and so has its unlabelled part, to which datasets without unlabelled rows give nothing.
    Labels count the identities of the first dataset, then those of the second, and a batch has them in that
    order.

    Everything is a function of (seed, step): step s is batch `s % steps_per_epoch` of epoch
    `s // steps_per_epoch`, so a run resumes from its step number alone.

    Parameters
    ----------
    labels
        Who is on each row of the store.
    rows
        Numbers of the rows to train on.
    identities_per_batch, shots, unlabelled_per_batch
        P, K and U.
    seed
        Of all random choices.
    amounts
        How many identities of each dataset an epoch takes; by default each identity once.

    Raises
    ------
    PersonSearchError
        If the rows cannot fill a batch.

    Examples
    --------
    >>> labels = ReidLabels.from_columns(["a", "a", "b", "b", "c", "c"], ["1", "2", "1", "2", "1", "2"])
    >>> sampler = PKSampler(labels, np.arange(6), identities_per_batch=2, shots=2)
    >>> sampler.steps_per_epoch, sampler.batch(0).shape
    (2, (4,))
    """

    def __init__(
        self,
        labels: ReidLabels,
        rows: IntArray,
        identities_per_batch: int,
        shots: int,
        unlabelled_per_batch: int = 0,
        seed: int = 0,
        amounts: Sequence[Amount] | None = None,
    ) -> None:
        """`rows` are the numbers of the rows to train on. Raises where they cannot fill a batch."""
        self._seed = seed
        self._shots = shots
        self._per_batch = identities_per_batch
        self._unlabelled_per_batch = unlabelled_per_batch
        self._sources = labels.sources
        self._rows_of: list[list[IntArray]] = []
        self.names: list[str] = []
        """The training identities; a batch's labels are indices into them."""
        self.left_out: list[str] = []
        self.label_of_row = np.full(len(labels), UNLABELLED, dtype=np.int64)
        """(n,) label of every row of the store, `UNLABELLED` where it has none or is not trained on."""
        source = labels.source[rows]
        people = [self._add_people(labels, rows[source == each]) for each in range(len(labels.sources))]
        self._first = [0, *np.cumsum(people).tolist()]
        unlabelled = labels.label[rows] == UNLABELLED
        self._unlabelled = [rows[unlabelled & (source == each)] for each in range(len(people))]
        self.per_epoch = per_epoch(amounts, people) if amounts else tuple(people)
        """Identities of each dataset per epoch."""
        self._check(people)
        self._people_from = _in_batches(self.per_epoch, self.steps_per_epoch, identities_per_batch)
        with_unlabelled = [
            number if len(rows) else 0 for number, rows in zip(self.per_epoch, self._unlabelled, strict=True)
        ]
        self._unlabelled_from = _in_batches(with_unlabelled, self.steps_per_epoch, unlabelled_per_batch)
        self._check_shares(people)
        self.epoch = lru_cache(maxsize=2)(self._draw_epoch)
        """All batches (steps_per_epoch, P*K + U) of an epoch, by its number."""

    def _add_people(self, labels: ReidLabels, rows: IntArray) -> int:
        """Take in the identities of a dataset's rows that have two or more; returns how many they are."""
        before = len(self.names)
        for number, members in _grouped(labels.label[rows], rows):
            if number == UNLABELLED:
                continue
            if len(members) < 2:
                self.left_out.append(labels.names[number])
                continue
            self.label_of_row[members] = len(self.names)
            self.names.append(labels.names[number])
            self._rows_of.append([views for _, views in _grouped(labels.box[members], members)])
        return len(self.names) - before

    @property
    def steps_per_epoch(self) -> int:
        return _steps(self.per_epoch, self._per_batch)

    def batch(self, step: int) -> IntArray:
        """Row numbers (P*K + U,) of a step's batch: K rows of each identity in turn, then unlabelled rows."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[position, :]

    def _draw_epoch(self, epoch: int) -> IntArray:
        generator = np.random.default_rng((self._seed, epoch))
        identities = np.empty_like(self._people_from)
        for source, (first, last) in enumerate(pairwise(self._first)):
            places = self._people_from == source
            # One order for all passes: an identity comes up again only after all the others.
            order = first + generator.permutation(last - first)
            identities[places] = np.resize(order, np.count_nonzero(places))
        batches = [
            np.concatenate(
                [
                    *(self._draw_shots(generator, self._rows_of[identity]) for identity in of_batch),
                    *(
                        generator.choice(rows, np.count_nonzero(unlabelled == source), replace=False)
                        for source, rows in enumerate(self._unlabelled)
                    ),
                ]
            )
            for of_batch, unlabelled in zip(identities, self._unlabelled_from, strict=True)
        ]
        return np.stack(batches)

    def _draw_shots(self, generator: np.random.Generator, boxes: list[IntArray]) -> IntArray:
        """One view of each box in random order, then second views ...; repeated until there are enough."""
        order = generator.permutation(len(boxes))[: self._shots]
        views = [generator.permutation(boxes[box]) for box in order]
        most_views = max(len(rows) for rows in views) if len(views) < self._shots else 1
        by_round = [rows[n] for n in range(most_views) for rows in views if n < len(rows)]
        return np.resize(np.array(by_round, dtype=np.int64), self._shots)

    def _check(self, people: Sequence[int]) -> None:
        if self.left_out:
            logger.warning(
                "%d identities have a single row, hence no positive pair, and are left out: %s%s",
                len(self.left_out),
                ", ".join(self.left_out[:5]),
                " ..." if len(self.left_out) > 5 else "",
            )
        for source, number in zip(self._sources, people, strict=True):
            if not number and len(people) > 1:
                raise PersonSearchError(f"{source}: no identity has two or more rows to train on")
        if len(self.names) < self._per_batch:
            raise PersonSearchError(
                f"identities_per_batch is {self._per_batch}, but only {len(self.names)} identities have two "
                f"or more rows to train on ({len(self.left_out)} have a single one): lower it, hold "
                "fewer out, or use a larger view"
            )
        n_unlabelled = sum(map(len, self._unlabelled))
        if n_unlabelled < self._unlabelled_per_batch:
            raise PersonSearchError(
                f"unlabelled_per_batch is {self._unlabelled_per_batch}, but the store has "
                f"{n_unlabelled} unlabelled rows to train on: lower it, or build the features "
                "with boxes: all"
            )

    def _check_shares(self, people: Sequence[int]) -> None:
        """Raise if a dataset's part of a batch would have an identity, or an unlabelled row, twice."""
        for source, name in enumerate(self._sources):
            share = _most(self._people_from == source)
            if share > people[source]:
                raise PersonSearchError(
                    f"{name}: {share} of the {self._per_batch} identities of a batch are its share, but only "
                    f"{people[source]} of its identities have two or more rows to train on: lower "
                    "identities_per_batch or this dataset's amount, or hold fewer out"
                )
            share = _most(self._unlabelled_from == source)
            if share > len(self._unlabelled[source]):
                raise PersonSearchError(
                    f"{name}: {share} of the {self._unlabelled_per_batch} unlabelled rows of a batch are its "
                    f"share, but it has {len(self._unlabelled[source])} to train on: lower "
                    "unlabelled_per_batch or this dataset's amount"
                )


def largest_shares(amounts: Sequence[Amount], people: Sequence[int], per_batch: int) -> list[int]:
    """How many identities of each dataset a batch takes at most, from the number that each dataset has."""
    counts = per_epoch(amounts, people)
    places = _in_batches(counts, _steps(counts, per_batch), per_batch)
    return [_most(places == source) for source in range(len(people))]


def _steps(counts: Sequence[int], per_batch: int) -> int:
    return -(-sum(counts) // per_batch)


def _in_batches(counts: Sequence[int], steps: int, size: int) -> IntArray:
    """Which dataset each place of an epoch's batches takes, (steps, size), in their order in each batch."""
    if not sum(counts):
        return np.empty((steps, 0), np.int64)
    return np.sort(_spread(counts, steps * size).reshape(steps, size), axis=1)


def _spread(counts: Sequence[int], length: int) -> IntArray:
    """Indices of `counts` in turn, (length,): any stretch has each in proportion to its count.

    The first sum(counts) have each exactly as often as counted; then they start again.
    """
    due = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    index = np.repeat(np.arange(len(counts)), counts)
    return np.resize(index[np.argsort(due, kind="stable")], length)


def _most(places: npt.NDArray[np.bool_]) -> int:
    """The largest number of places of one batch."""
    return int(places.sum(axis=1).max(initial=0))


def _grouped(keys: IntArray, rows: IntArray) -> list[tuple[int, IntArray]]:
    """(key, its rows) for each key, ascending; rows keep their order."""
    order = np.argsort(keys, kind="stable")
    unique, starts = np.unique(keys[order], return_index=True)
    return list(zip(unique.tolist(), np.split(rows[order], starts[1:]), strict=True))
