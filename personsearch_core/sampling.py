"""P x K batches: P identities with K rows of each (Hermans et al. 2017, section 2)."""

from __future__ import annotations

import logging
from functools import lru_cache

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import UNLABELLED, IntArray, ReidLabels

logger = logging.getLogger(__name__)


class PKSampler:
    """Batches of P identities x K rows each, followed by U unlabelled rows.

    An epoch shows every identity once, in an order drawn from (seed, epoch); the last batch is filled up with
    identities from the epoch's start. The rows of an identity in a batch show different boxes while there are
    enough; then further views of its boxes are used, and only then are rows repeated. An identity with a
    single row has no positive and is left out: `left_out` names it.

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
    ) -> None:
        """`rows` are the numbers of the rows to train on. Raises where they cannot fill a batch."""
        self._seed = seed
        self._shots = shots
        self._per_batch = identities_per_batch
        self._unlabelled_per_batch = unlabelled_per_batch
        label = labels.label[rows]
        self._unlabelled = rows[label == UNLABELLED]
        self._rows_of: list[list[IntArray]] = []
        self.names: list[str] = []
        """The training identities; a batch's labels are indices into them."""
        self.left_out: list[str] = []
        self.label_of_row = np.full(len(labels), UNLABELLED, dtype=np.int64)
        """(n,) label of every row of the store, `UNLABELLED` where it has none or is not trained on."""
        for number, members in _grouped(label, rows):
            if number == UNLABELLED:
                continue
            if len(members) < 2:
                self.left_out.append(labels.names[number])
                continue
            self.label_of_row[members] = len(self.names)
            self.names.append(labels.names[number])
            self._rows_of.append([views for _, views in _grouped(labels.box[members], members)])
        self._check()
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.names) // self._per_batch)

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, batch within the epoch) of a step."""
        return divmod(step, self.steps_per_epoch)

    def batch(self, step: int) -> IntArray:
        """Row numbers (P*K + U,) of a step's batch: K rows of each identity in turn, then unlabelled rows."""
        epoch, position = self.position(step)
        return self._epoch(epoch)[position, :]

    def epoch(self, epoch: int) -> IntArray:
        """All batches (steps_per_epoch, P*K + U) of an epoch."""
        return self._epoch(epoch)

    def _draw_epoch(self, epoch: int) -> IntArray:
        generator = np.random.default_rng((self._seed, epoch))
        order = generator.permutation(len(self.names))
        filled = np.resize(order, (self.steps_per_epoch, self._per_batch))
        batches = [
            np.concatenate(
                [
                    *(self._draw_shots(generator, self._rows_of[identity]) for identity in identities),
                    generator.choice(self._unlabelled, self._unlabelled_per_batch, replace=False),
                ]
            )
            for identities in filled
        ]
        return np.stack(batches)

    def _draw_shots(self, generator: np.random.Generator, boxes: list[IntArray]) -> IntArray:
        """One view of each box in random order, then second views ...; repeated until there are enough."""
        order = generator.permutation(len(boxes))[: self._shots]
        views = [generator.permutation(boxes[box]) for box in order]
        most_views = max(len(rows) for rows in views) if len(views) < self._shots else 1
        by_round = [rows[n] for n in range(most_views) for rows in views if n < len(rows)]
        return np.resize(np.array(by_round, dtype=np.int64), self._shots)

    def _check(self) -> None:
        if self.left_out:
            logger.warning(
                "%d identities have a single row, hence no positive pair, and are left out: %s%s",
                len(self.left_out),
                ", ".join(self.left_out[:5]),
                " ..." if len(self.left_out) > 5 else "",
            )
        if len(self.names) < self._per_batch:
            raise PersonSearchError(
                f"identities_per_batch is {self._per_batch}, but only {len(self.names)} identities have two "
                f"or more rows to train on ({len(self.left_out)} have a single one): lower it, hold "
                "fewer out, or use a larger view"
            )
        if len(self._unlabelled) < self._unlabelled_per_batch:
            raise PersonSearchError(
                f"unlabelled_per_batch is {self._unlabelled_per_batch}, but the store has "
                f"{len(self._unlabelled)} unlabelled rows to train on: lower it, or build the features "
                "with boxes: all"
            )


def _grouped(keys: IntArray, rows: IntArray) -> list[tuple[int, IntArray]]:
    """(key, its rows) for each key, ascending; rows keep their order."""
    order = np.argsort(keys, kind="stable")
    unique, starts = np.unique(keys[order], return_index=True)
    return list(zip(unique.tolist(), np.split(rows[order], starts[1:]), strict=True))
