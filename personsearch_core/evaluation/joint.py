"""Ranks many settings over one pool of detections together: similarities and matches are looked at once.

Detections that the same settings rank form a class. A query's similarities are sorted class by class; how
many of a setting's detections are at least as similar as a positive is then a sum over its classes, and what
the setting hides from the query is subtracted. The numbers equal those of each setting alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from personsearch_core.evaluation.matching import GroupedDetections, equal_pairs
from personsearch_core.evaluation.parallel import BlockProducts, Job, MapBlocks, run_jobs
from personsearch_core.evaluation.ranking import FoundTruths, count_positives_at_least
from personsearch_core.evaluation.records import BoolArray, FloatArray, IntArray
from personsearch_core.evaluation.search import BlockCounts, SearchTask, first_maximum, matched_truths
from personsearch_core.evaluation.similarities import hidden_detections
from personsearch_core.evaluation.task import WholeGallery
from personsearch_core.evaluation.zheng2017 import BACKGROUND, Zheng2017Task, average_precisions

Task = SearchTask | Zheng2017Task

_FEW = 64
"""Up to this many detections, comparing each with every level is faster than sorting them."""


@dataclass(frozen=True, eq=False)
class _Classes:
    """Classes of a pool's detections: `columns` (n,) class by class, `bounds` (c + 1,) of each class in it.

    `ranks` (t, m): whether a task ranks a detection; `has` (t, c): whether it ranks a class.
    """

    columns: IntArray
    bounds: IntArray
    ranks: BoolArray
    has: FloatArray

    @classmethod
    def of(cls, tasks: Sequence[Task], n_detections: int) -> _Classes:
        ranks = np.zeros((len(tasks), n_detections), bool)
        for ranked, task in zip(ranks, tasks, strict=True):
            ranked[slice(None) if task.gallery.column is None else task.gallery.column] = True
        in_any = np.flatnonzero(ranks.any(axis=0))
        patterns, number = np.unique(np.packbits(ranks[:, in_any], axis=0), axis=1, return_inverse=True)
        number = number.ravel()
        order = np.argsort(number, kind="stable")
        has = np.unpackbits(patterns, axis=0, count=len(tasks)).astype(np.float64)
        bounds = np.searchsorted(number[order], np.arange(patterns.shape[1] + 1))
        return cls(in_any[order], bounds, ranks, has)

    def at_least(self, similarities: FloatArray, levels: FloatArray) -> FloatArray:
        """Per task, the number of its detections whose similarity (m,) is >= each level -> (t, levels)."""
        by_class = similarities.take(self.columns)
        counts = np.empty((len(self.bounds) - 1, len(levels)))
        for count, (start, stop) in zip(counts, pairwise(self.bounds.tolist()), strict=True):
            rising = by_class[start:stop]
            rising.sort()
            count[:] = (stop - start) - rising.searchsorted(levels)
        total: FloatArray = self.has @ counts
        return total


@dataclass(frozen=True, eq=False)
class JointRanking:
    """Tasks with the same queries that rank parts of one pool: whole galleries, not rescored."""

    tasks: tuple[Task, ...]
    whole: GroupedDetections
    classes: _Classes

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> JointRanking:
        galleries = [task.gallery for task in tasks]
        whole = next((gallery.whole for gallery in galleries if gallery.whole is not None), galleries[0])
        return cls(tuple(tasks), whole, _Classes.of(tasks, len(whole)))

    def job(self) -> Job:
        """All rankings, as one job for workers; a block's outcome is a list with one per task."""
        queries = self.tasks[0].queries
        return Job(queries.embeddings, self.whole.pool, None, partial(_rank_block, self), whole_block=True)


def run_tasks(
    tasks: Sequence[Task], map_blocks: MapBlocks, progress: Callable[[int, int], None] | None = None
) -> list[list[Any]]:
    """Outcomes of each task's blocks; tasks with the same queries and pool of detections rank together."""
    together: dict[object, list[int]] = {}
    for number, task in enumerate(tasks):
        key = (id(task.queries.embeddings), id(task.gallery.pool)) if _can_join(task) else number
        together.setdefault(key, []).append(number)
    groups = list(together.values())
    jobs = []
    for group in groups:
        members = [tasks[number] for number in group]
        jobs.append(members[0].job() if len(group) == 1 else JointRanking.of(members).job())
    outcomes: dict[int, list[Any]] = {}
    for group, blocks in zip(groups, run_jobs(jobs, map_blocks, progress), strict=True):
        for place, number in enumerate(group):
            outcomes[number] = blocks if len(group) == 1 else [block[place] for block in blocks]
    return [outcomes[number] for number in range(len(tasks))]


def _can_join(task: Task) -> bool:
    if isinstance(task, Zheng2017Task):
        return True
    return isinstance(task.scope, WholeGallery) and task.rescore is None and not task.keep_best


def _rank_block(joint: JointRanking, block: range, products: BlockProducts) -> list[Any]:
    """Outcome of each task."""
    parts: list[_Searches | _Originals] = []
    searches: dict[tuple[int, int], list[int]] = {}
    originals = []
    for number, task in enumerate(joint.tasks):
        if isinstance(task, Zheng2017Task):
            originals.append(number)
        else:
            searches.setdefault((id(task.scope), id(task.truths)), []).append(number)
    parts += [_Searches(joint, numbers, block, products) for numbers in searches.values()]
    if originals:
        parts.append(_Originals(joint, originals, block, products))
    for i, similarities in enumerate(products):
        levels = np.unique(np.concatenate([part.levels(i) for part in parts]))
        counts = joint.classes.at_least(similarities, levels)
        for part in parts:
            part.count(i, similarities, levels, counts[part.numbers])
    outcomes: dict[int, Any] = {}
    for part in parts:
        outcomes |= zip(part.numbers, part.outcomes(), strict=True)
    return [outcomes[number] for number in range(len(joint.tasks))]


class _Searches:
    """The part of searches with the same ground truths and hidden images, for one block."""

    def __init__(
        self, joint: JointRanking, numbers: list[int], block: range, products: BlockProducts
    ) -> None:
        task = joint.tasks[numbers[0]]
        assert isinstance(task, SearchTask) and isinstance(task.scope, WholeGallery)
        self.numbers, self.block, self.whole, self.scope = numbers, block, joint.whole, task.scope
        self.ranks = joint.classes.ranks[numbers]
        self.truth, self.starts, self.candidate = matched_truths(joint.whole, task.truths, block)
        self.query = np.searchsorted(task.truths.offsets, self.truth, side="right") - 1 - block.start
        pair_query = np.repeat(self.query, np.diff(self.starts, append=len(self.candidate)))
        values = products[pair_query, self.candidate]
        self.values = np.where(self.ranks[:, self.candidate], values, np.float32(-np.inf))
        shape = len(numbers), len(self.starts)
        self.best = (
            np.maximum.reduceat(self.values, self.starts, axis=1)
            if len(self.starts)
            else np.empty(shape, np.float32)
        )
        self.stops = np.searchsorted(self.query, np.arange(len(block) + 1))
        highest = np.full((len(block), len(numbers)), np.float32(-np.inf))
        np.maximum.at(highest, self.query, self.best.T)
        self.above = _just_above(highest).T
        self.rows = np.arange(len(numbers))
        self.counts = np.zeros(shape)
        self.n_above_best = np.zeros((len(numbers), len(block)), np.int64)
        self.n_gallery = np.empty((len(numbers), len(block)), np.int64)
        self.n_ranked = self.ranks.sum(axis=1)

    def levels(self, i: int) -> FloatArray:
        """The similarities that need a count for query i: its positives', and just above the best one's."""
        of_query = self.best[:, self.stops[i] : self.stops[i + 1]]
        if not of_query.size:
            return of_query.ravel()
        return np.concatenate([of_query.ravel(), self.above[:, i]])

    def count(self, i: int, similarities: FloatArray, levels: FloatArray, counts: FloatArray) -> None:
        """Take query i's counts from those of all detections, (tasks, levels)."""
        apart = self._apart(i)
        ranks = self.ranks[:, apart]
        n_apart = ranks.sum(axis=1)
        self.n_gallery[:, i] = n_apart if self.scope.only else self.n_ranked - n_apart
        members = slice(self.stops[i], self.stops[i + 1])
        of_query = self.best[:, members]
        if not of_query.size:
            return
        of_apart = _at_least(similarities[apart], ranks, levels)
        counts = of_apart if self.scope.only else counts - of_apart
        self.counts[:, members] = counts[self.rows[:, None], levels.searchsorted(of_query)]
        self.n_above_best[:, i] = counts[self.rows, levels.searchsorted(self.above[:, i])]

    def _apart(self, i: int) -> IntArray:
        """The detections that query i does not rank, or the only ones that it ranks."""
        if not self.scope.only:
            return hidden_detections(self.whole, self.scope, self.block[i])
        group = self.scope.group[self.block[i]]
        return np.arange(self.whole.group_starts[group], self.whole.group_starts[group + 1])

    def outcomes(self) -> list[BlockCounts]:
        return [self._outcome(number) for number in range(len(self.numbers))]

    def _outcome(self, number: int) -> BlockCounts:
        best, values = self.best[number], self.values[number]
        found = np.flatnonzero(best > -np.inf)
        chosen = first_maximum(values, best, self.starts)[found]
        query = self.query[found] + self.block.start
        similarity = best[found]
        counts = FoundTruths(
            query=query,
            truth=self.truth[found],
            detection=self.whole.row[self.candidate[chosen]],
            similarity=similarity,
            at_least=np.rint(self.counts[number, found]).astype(np.int64),
            positives=count_positives_at_least(query, similarity),
        )
        return BlockCounts(counts, self.n_gallery[number], self.n_above_best[number], [])


class _Originals:
    """The part of rankings by PRW's original protocol, for one block."""

    def __init__(
        self, joint: JointRanking, numbers: list[int], block: range, products: BlockProducts
    ) -> None:
        tasks = [task for task in map(joint.tasks.__getitem__, numbers) if isinstance(task, Zheng2017Task)]
        self.numbers, self.tasks, self.block, self.row = numbers, tasks, block, joint.whole.row
        self.ranks = joint.classes.ranks[numbers]
        person = np.full(len(joint.whole), BACKGROUND)
        camera = np.zeros(len(joint.whole), np.int64)
        for task in tasks:
            place = slice(None) if task.gallery.column is None else task.gallery.column
            person[place], camera[place] = task.person_id, task.camera
        order = np.argsort(person, kind="stable")
        wanted = tasks[0].queries.person_ids()[block.start : block.stop]
        self.query, position = equal_pairs(wanted, person[order])
        self.own = order[position]
        self.stops = np.searchsorted(self.query, np.arange(len(block) + 1))
        self.similarity = products[self.query, self.own]
        self.other_camera = camera[self.own] != tasks[0].query_camera[block.start : block.stop][self.query]
        self.above = _just_above(self.similarity)
        self.rank = np.zeros((len(numbers), len(self.own)), np.int64)

    def levels(self, i: int) -> FloatArray:
        """The similarities of query i's person in other cameras, and those just above them."""
        members = slice(self.stops[i], self.stops[i + 1])
        shown = self.other_camera[members]
        return np.concatenate([self.similarity[members][shown], self.above[members][shown]])

    def count(self, i: int, similarities: FloatArray, levels: FloatArray, counts: FloatArray) -> None:
        """Take query i's counts from those of all detections, (tasks, levels)."""
        own = np.arange(self.stops[i], self.stops[i + 1])
        hidden, positives = own[~self.other_camera[own]], own[self.other_camera[own]]
        if not len(positives):
            return
        if len(hidden):
            counts = counts - _at_least(self.similarity[hidden], self.ranks[:, self.own[hidden]], levels)
        values = self.similarity[positives]
        last = counts[:, levels.searchsorted(values)]
        above = counts[:, levels.searchsorted(self.above[positives])]
        ranked = self.ranks[:, self.own[positives]]
        for number, place in np.argwhere(ranked & (last - above > 1)):
            tied = self.ranks[number] & (similarities == values[place])
            tied[self.own[hidden]] = False
            later = self.row[np.flatnonzero(tied)] > self.row[self.own[positives[place]]]
            last[number, place] -= np.count_nonzero(later)
        self.rank[:, positives] = np.where(ranked, np.rint(last), 0)

    def outcomes(self) -> list[tuple[FloatArray, IntArray]]:
        found = []
        for task, ranks in zip(self.tasks, self.rank, strict=True):
            positives = np.flatnonzero(ranks)
            n_truths = task.n_truths[self.block.start : self.block.stop]
            found.append(average_precisions(self.query[positives], ranks[positives], n_truths))
        return found


def _just_above(values: FloatArray) -> FloatArray:
    """The next float32: as many are at least that as are more than the value."""
    return np.nextafter(values, np.float32(np.inf))


def _at_least(values: FloatArray, ranks: BoolArray, levels: FloatArray) -> FloatArray:
    """Per task, the number of `values` (n,) among those that it `ranks` (t, n) that are >= each level."""
    if len(values) <= _FEW:
        few: FloatArray = ranks.astype(np.float32) @ (values[:, None] >= levels).astype(np.float32)
        return few
    counts = np.empty((len(ranks), len(levels)))
    for count, ranked in zip(counts, ranks, strict=True):
        rising = np.sort(values[ranked])
        count[:] = len(rising) - rising.searchsorted(levels)
    return counts
