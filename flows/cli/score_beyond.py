"""What `personsearch score` gives beside the standard numbers, each under a key of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.cbgm import with_context_matching
from personsearch_core.evaluation.comparison import bootstrap_interval
from personsearch_core.evaluation.parallel import in_threads
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Queries
from personsearch_core.evaluation.rerank import with_k_reciprocal
from personsearch_core.evaluation.search import MapBlocks, run_search, serially
from personsearch_core.evaluation.task import SearchTask


@dataclass(frozen=True)
class Beyond:
    """Options as they were given; see `personsearch score prw --help`."""

    cbgm: str | None = None
    cbgm_lift: Literal["max", "sum"] = "max"
    rerank: bool = False
    rerank_with: str | None = None
    bootstrap: int = 0
    threads: int = 1

    @property
    def rescores(self) -> bool:
        """Whether anything ranks anew."""
        return self.cbgm is not None or self.rerank or self.rerank_with is not None

    def numbers(self, task: SearchTask, queries: Queries, result: SearchResult) -> dict[str, Any]:
        """Metrics under `cbgm` and `rerank`, intervals of the standard ones under `bootstrap`."""
        extra: dict[str, Any] = {}
        if self.cbgm is not None:
            extra["cbgm"] = self._ranked_anew(self._context_matched(task, queries, self.cbgm), result)
        if self.rerank_with is not None:
            extra["rerank"] = self._ranked_anew(_re_ranked(task, self.rerank_with), result)
        elif self.rerank:
            extra["rerank"] = self._ranked_anew(with_k_reciprocal(task), result)
        if self.bootstrap:
            rng = np.random.default_rng(0)
            extra["bootstrap"] = {
                "mAP": asdict(bootstrap_interval(result.ap, rng, draws=self.bootstrap)),
                "top1": asdict(bootstrap_interval(result.hits(1), rng, draws=self.bootstrap)),
            }
        return extra

    def _ranked_anew(self, task: SearchTask, result: SearchResult) -> dict[str, float]:
        return run_search(task, result.score_threshold, workers(self.threads)).metrics()

    def _context_matched(self, task: SearchTask, queries: Queries, text: str) -> SearchTask:
        numbers = numbers_of(text)
        if len(numbers) != 2:
            raise PersonSearchError(f"--cbgm takes two whole numbers such as 10,3; not {text!r}")
        return with_context_matching(task, queries, *numbers, lift=self.cbgm_lift)


def workers(threads: int) -> MapBlocks:
    return serially if threads == 1 else in_threads(threads)


def numbers_of(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise PersonSearchError(f"{text!r} is no list of whole numbers such as 10,3")
    return tuple(int(part) for part in parts)


def _re_ranked(task: SearchTask, text: str) -> SearchTask:
    try:
        k1, k2, weight, depth = text.split(",")
        values = int(k1), int(k2), float(weight), int(depth)
    except ValueError as error:
        raise PersonSearchError(
            f"--rerank-with takes K1,K2,LAMBDA,DEPTH such as 20,6,0.3,200; not {text!r}"
        ) from error
    return with_k_reciprocal(task, *values)
