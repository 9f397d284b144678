"""The cost of evaluation at the protocols' sizes, and its speed-up over a plain implementation.

The plain one (benchmarks.plain_evaluation) loops over the gallery's images for each query; it runs on some of
the queries, and its time is scaled up. Times are compared only if the results are equal. Each case runs in a
process of its own, whose peak memory is read before the plain implementation starts.

    python -m benchmarks.evaluation [--only g100,prw] [--plain-queries 40] [--json OUT]

Run it with one BLAS thread (OPENBLAS_NUM_THREADS=1); times are CPU seconds.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import numpy as np
import typer

from benchmarks.drawn_galleries import cuhk_sysu_like, prw_like
from benchmarks.options import chosen, run_script
from benchmarks.plain_evaluation import plain_cuhk_sysu, plain_prw
from benchmarks.searches import NAME, prw_inputs, search_lists, search_prw, search_zheng2017
from flows.cli.json_file import Json, write_json
from personsearch_core.evaluation.front import evaluate
from personsearch_core.evaluation.records import FloatArray, GalleryLists, Queries
from personsearch_core.evaluation.settings import Setting
from personsearch_core.recipes import EvaluationRecipe

REPEATS = 5


@dataclass(frozen=True)
class Case:
    """One problem: the evaluator, and the plain implementation on the first `n` queries."""

    title: str
    n_queries: int
    evaluate: Callable[[], FloatArray]
    plain: Callable[[int], list[tuple[float, int]]] | None = None
    plain_share: int = 1
    """Factor on the number of queries that the command line gives the plain implementation."""


@dataclass(frozen=True)
class CaseTiming:
    """Median CPU seconds of REPEATS repeats; peak memory of the process, including the problem."""

    title: str
    seconds: float
    peak_mib: float
    plain_seconds: float | None = None
    ratio: float | None = None
    largest_difference: float | None = None


def g100() -> Case:
    found, queries, lists = cuhk_sysu_like(np.random.default_rng(0))

    def plain(n: int) -> list[tuple[float, int]]:
        return plain_cuhk_sysu(found, _first_queries(queries, n), _first_lists(lists, n))

    title = "CUHK-SYSU G100, 2,900 queries"
    return Case(title, len(queries), lambda: search_lists(found, queries, lists).ap, plain, 10)


def prw(
    title: str = "PRW test set, 6,112 images, 2,057 queries", *, with_plain: bool = True, **size: int
) -> Case:
    found, queries, truth, cameras = prw_like(np.random.default_rng(0), **size)

    def plain(n: int) -> list[tuple[float, int]]:
        return plain_prw(found, _first_queries(queries, n), truth, cameras)

    def ours() -> FloatArray:
        return search_prw(found, queries, truth, cameras).ap

    return Case(title, len(queries), ours, plain if with_plain else None)


def prw_mini() -> Case:
    return prw("PRW mini, 612 images, 166 queries", n_images=612, n_detections=3_100, n_queries=166)


def zheng2017() -> Case:
    found, queries, truth, cameras = prw_like(np.random.default_rng(0))
    title = "PRW test set by Zheng et al. 2017"
    return Case(title, len(queries), lambda: search_zheng2017(found, queries, truth, cameras).ap)


def sweep() -> Case:
    inputs = prw_inputs(*prw_like(np.random.default_rng(0)))
    recipe, plain = EvaluationRecipe(), Setting(NAME, NAME)
    settings = [plain, *(replace(plain, boxes_per_image=k) for k in (1, 1.5, 2, 2.5, 3))]

    def searched() -> FloatArray:
        return evaluate(recipe, inputs, settings=settings, detection_at=None).searches[0].result.ap

    return Case("PRW test set, six numbers of boxes per image", 2_057, searched)


def large() -> Case:
    title = "100,000 images, 300,000 detections, 400 queries"
    return prw(title, with_plain=False, n_images=100_000, n_detections=300_000, n_queries=400)


CASES: dict[str, Callable[[], Case]] = {
    "g100": g100,
    "prw_mini": prw_mini,
    "prw": prw,
    "zheng2017": zheng2017,
    "sweep": sweep,
    "large": large,
}


def measure(name: str, plain_queries: int, repeats: int = REPEATS) -> CaseTiming:
    """Run one case in this process. Raises SystemExit if the two implementations differ."""
    case = CASES[name]()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        ap = case.evaluate()
        seconds.append(time.process_time() - start)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = CaseTiming(case.title, statistics.median(seconds), peak_mib)
    if case.plain is None:
        return row
    start = time.process_time()
    outcomes = case.plain(min(case.n_queries, plain_queries * case.plain_share))
    plain_seconds = (time.process_time() - start) * case.n_queries / len(outcomes)
    difference = float(np.abs(ap[: len(outcomes)] - [value for value, _ in outcomes]).max())
    if difference > 1e-9:
        raise SystemExit(f"{case.title}: the two implementations differ by {difference} in AP")
    return CaseTiming(
        case.title, row.seconds, peak_mib, plain_seconds, plain_seconds / row.seconds, difference
    )


def _first_queries(queries: Queries, n: int) -> Queries:
    person = None if queries.person_id is None else queries.person_id[:n]
    return Queries(queries.image[:n], queries.boxes[:n], queries.embeddings[:n], person)


def _first_lists(lists: GalleryLists, n: int) -> GalleryLists:
    rows = slice(0, lists.offsets[n])
    return GalleryLists(lists.offsets[: n + 1], lists.image[rows], lists.is_positive[rows], lists.boxes[rows])


def main(
    only: Annotated[str, typer.Option(help="Cases, comma-separated.")] = ",".join(CASES),
    plain_queries: Annotated[int, typer.Option(min=1, help="Queries of the plain implementation.")] = 40,
    json_file: Json = None,
) -> None:
    rows = []
    for name in chosen("--only", only, CASES):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as alone:
            row = alone.submit(measure, name, plain_queries).result()
        rows.append(asdict(row))
        against = f"{row.ratio:6.0f} x a plain loop" if row.ratio is not None else ""
        print(f"{row.title:<50} {row.seconds:7.3f} s  {row.peak_mib:6.0f} MiB  {against}", flush=True)
    write_json(json_file, rows)


if __name__ == "__main__":
    run_script(main, __doc__)
