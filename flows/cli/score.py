"""`personsearch score`: detections made by any software, scored by the community's protocols.

Files are Parquet tables; `personsearch_core/evaluation/tables.py` says which columns they have.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from flows.protocol_files import default_cache, read_protocol
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.boxes_per_image import score_threshold_for, top_k_of_each_image
from personsearch_core.evaluation.breakdown import by_camera_pair, by_crowdedness, by_query_height
from personsearch_core.evaluation.cbgm import with_context_matching
from personsearch_core.evaluation.comparison import bootstrap_interval, compare_runs
from personsearch_core.evaluation.cuhk_sysu import cuhk_sysu_task
from personsearch_core.evaluation.multi_shot import pool_shots
from personsearch_core.evaluation.parallel import in_threads
from personsearch_core.evaluation.prw import evaluate_prw, prw_task
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Detections, GroundTruth, IntArray, Queries
from personsearch_core.evaluation.rerank import with_k_reciprocal
from personsearch_core.evaluation.search import MapBlocks, run_search, serially
from personsearch_core.evaluation.task import SearchTask
from personsearch_core.evaluation.zheng2017 import Zheng2017Result, evaluate_zheng2017

app = typer.Typer(no_args_is_help=True, help="Score detections made by any software.")

DetectionsFile = Annotated[Path, typer.Option(help="Parquet: image, x1, y1, x2, y2, score, embedding.")]
QueriesFile = Annotated[Path, typer.Option(help="Parquet: query, image, x1, y1, x2, y2, embedding.")]
ImagesFile = Annotated[Path, typer.Option(help="Parquet: all test images; PRW also camera_id.")]
BoxesFile = Annotated[Path, typer.Option(help="Parquet: ground truth image, x1, y1, x2, y2, person_id.")]
Threshold = Annotated[float, typer.Option(help="Keep detections with at least this score.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")]
PerQuery = Annotated[Path | None, typer.Option(help="Write a Parquet table with one row a query here.")]
Cbgm = Annotated[
    str | None, typer.Option(metavar="K1,K2", help="Also rank with context matching: 10,3 or 30,4.")
]
Rerank = Annotated[bool, typer.Option("--rerank", help="Also rank with k-reciprocal re-ranking.")]
Bootstrap = Annotated[int, typer.Option(min=0, help="Draws for 95% intervals over queries; 0 = none.")]
Breakdown = Annotated[bool, typer.Option("--breakdown", help="Also by box height, crowd and camera pair.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that rank blocks of queries.")]


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@app.command("cuhk-sysu")
def cuhk_sysu(
    detections: DetectionsFile,
    queries: QueriesFile,
    protocol_file: Annotated[Path, typer.Option(help="TestG50.mat ... TestG4000.mat.")],
    score_threshold: Threshold = 0.5,
    full_gallery: Annotated[
        bool, typer.Option("--full-gallery", help="Rank all test images; give TestG50.mat.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Where parsed protocol files are kept.")] = None,
    json_file: Json = None,
    per_query: PerQuery = None,
    cbgm: Cbgm = None,
    rerank: Rerank = False,
    bootstrap: Bootstrap = 0,
    breakdown: Breakdown = False,
    threads: Threads = 1,
) -> None:
    """CUHK-SYSU's search protocol; `query` counts the protocol file's queries from 0."""
    clock = _Clock()
    with _spoken_warnings():
        with clock.step("read"):
            found_table = tables.open_detections(detections, embeddings=True)
            query_table = tables.open_queries(queries, person_id=False)
        with clock.step("protocol"):
            protocol = read_protocol(protocol_file, cache or default_cache())
            names = [protocol.gallery["image_id"], protocol.queries["image_id"]]
            images = tables.Names.of("image", *names, *([found_table.column("image")] * full_gallery))
            lists = tables.gallery_lists_from(protocol.gallery, protocol.queries["query_id"], images)
        with clock.step("read"):
            _same_queries(query_table, protocol.queries, protocol_file)
            found = tables.detections_from(found_table, images)
            people = tables.queries_from(query_table, images)
    with clock.step("evaluate"):
        task = cuhk_sysu_task(
            found, people, lists, score_threshold=score_threshold, full_gallery=full_gallery
        )
        result = run_search(task, score_threshold, _workers(threads))
    extra = _beyond(task, people, result, cbgm, rerank, bootstrap, threads)
    if breakdown:
        in_image = np.bincount(task.gallery.image, minlength=len(images))
        extra["by_height"] = [asdict(part) for part in by_query_height(result, people)]
        extra["by_crowdedness"] = [asdict(part) for part in by_crowdedness(result, people, in_image)]
    _write(json_file, _search_numbers(result) | extra, clock)
    _write_per_query(per_query, result)


@app.command("prw")
def prw(
    detections: DetectionsFile,
    queries: QueriesFile,
    images: ImagesFile,
    boxes: BoxesFile,
    cross_camera: Annotated[
        bool, typer.Option("--cross-camera", help="Leave out the query's camera.")
    ] = False,
    protocol: Annotated[
        Literal["person-search", "zheng2017"], typer.Option(help="As papers report it, or the original.")
    ] = "person-search",
    boxes_per_image: Annotated[
        float | None, typer.Option(help="Choose the threshold that leaves so many boxes an image.")
    ] = None,
    per_image_top_k: Annotated[
        bool, typer.Option("--per-image-top-k", help="Instead keep each image's K best.")
    ] = False,
    score_threshold: Threshold = 0.5,
    multi_shot: Annotated[bool, typer.Option("--multi-shot", help="Also pool a person's queries.")] = False,
    json_file: Json = None,
    per_query: PerQuery = None,
    cbgm: Cbgm = None,
    rerank: Rerank = False,
    bootstrap: Bootstrap = 0,
    breakdown: Breakdown = False,
    threads: Threads = 1,
) -> None:
    """PRW's search protocols."""
    clock = _Clock()
    with _spoken_warnings(), clock.step("read"):
        found, people, truth, cameras = _read_prw(detections, queries, images, boxes)
    with clock.step("protocol"):
        kept, threshold = _budget(found, len(cameras), boxes_per_image, per_image_top_k, score_threshold)
    if protocol == "zheng2017":
        if cbgm or rerank or multi_shot or breakdown:
            raise PersonSearchError(
                "protocol zheng2017 goes without --cbgm, --rerank, --multi-shot, --breakdown"
            )
        with clock.step("evaluate"):
            original = evaluate_zheng2017(found, people, truth, cameras, score_threshold=threshold, keep=kept)
        _write(json_file, _zheng_numbers(original, bootstrap), clock)
        _write_per_query(per_query, original)
        return
    shown = found if kept is None else found.select(kept)
    with clock.step("evaluate"):
        task = prw_task(shown, people, truth, cameras, cross_camera=cross_camera, score_threshold=threshold)
        result = run_search(task, threshold, _workers(threads))
    extra = _beyond(task, people, result, cbgm, rerank, bootstrap, threads)
    if multi_shot:
        pooled, hidden = pool_shots(people)
        extra["multi_shot"] = evaluate_prw(
            shown,
            pooled,
            truth,
            cameras,
            cross_camera=cross_camera,
            score_threshold=threshold,
            also_hidden=hidden,
        ).metrics()
    if breakdown:
        in_image = np.bincount(truth.image[~truth.ignore], minlength=len(cameras))
        pairs = by_camera_pair(shown, people, truth, cameras, score_threshold=threshold)
        extra["by_height"] = [asdict(part) for part in by_query_height(result, people)]
        extra["by_crowdedness"] = [asdict(part) for part in by_crowdedness(result, people, in_image)]
        extra["by_camera_pair"] = [asdict(part) for part in pairs]
    _write(json_file, _search_numbers(result) | extra, clock)
    _write_per_query(per_query, result)


@app.command("detection")
def detection(
    detections: DetectionsFile,
    images: ImagesFile,
    boxes: BoxesFile,
    score_threshold: Threshold = 0.5,
    json_file: Json = None,
) -> None:
    """Detection by the person-search rule and by pycocotools; no embeddings are needed."""
    # pycocotools imports matplotlib, which the other commands need not wait for.
    from personsearch_core.evaluation.detection import evaluate_detection

    clock = _Clock()
    with _spoken_warnings(), clock.step("read"):
        image_table = tables.open_images(images, camera_id=False)
        found_table = tables.open_detections(detections, embeddings=False)
        box_table = tables.open_boxes(boxes)
        names = tables.Names.of("image", image_table.column("image"))
        people = tables.Names.of("person", box_table.column("person_id"))
        found = tables.detections_from(found_table, names)
        truth = tables.ground_truth_from(box_table, names, people)
    with clock.step("evaluate"):
        result = evaluate_detection(found, truth, len(names), score_threshold=score_threshold)
    clock.seconds.setdefault("protocol", 0.0)
    _write(json_file, result.metrics() | {"queries": 0, "score_threshold": score_threshold}, clock)


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="Per-query table of run A, from --per-query.")],
    second: Annotated[Path, typer.Argument(help="Per-query table of run B.")],
    show: Annotated[int, typer.Option(min=0, help="How many gains and losses to list.")] = 5,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the interval and of the test.")] = 2000,
    seed: int = 0,
    json_file: Json = None,
) -> None:
    """Two runs query by query: which got better, which worse, and a paired test of the mean."""
    a, b = (tables.open_table(path, ("query", "ap")) for path in (first, second))
    if not np.array_equal(a.integers("query"), b.integers("query")):
        raise PersonSearchError(f"{first} and {second} do not have the same queries in the same order")
    ap_a, ap_b = (table.column("ap").to_numpy() for table in (a, b))
    comparison = compare_runs(ap_a, ap_b, np.random.default_rng(seed), draws=draws)

    def listed(rows: IntArray) -> list[dict[str, Any]]:
        return [
            {"query": int(a.integers("query")[i]), "a": float(ap_a[i]), "b": float(ap_b[i])} for i in rows
        ]

    numbers = {
        "difference": asdict(comparison.difference),
        "p_value": comparison.p_value,
        "better": comparison.n_better,
        "worse": comparison.n_worse,
        "equal": comparison.n_equal,
        "greatest_gains": listed(comparison.order[: min(show, comparison.n_better)]),
        "greatest_losses": listed(comparison.order[::-1][: min(show, comparison.n_worse)]),
    }
    _write(json_file, numbers, _Clock())


def _read_prw(
    detections: Path, queries: Path, images: Path, boxes: Path
) -> tuple[Detections, Queries, GroundTruth, IntArray]:
    image_table = tables.open_images(images, camera_id=True)
    box_table = tables.open_boxes(boxes)
    query_table = tables.open_queries(queries, person_id=True)
    names = tables.Names.of("image", image_table.column("image"))
    people = tables.Names.of("person", box_table.column("person_id"), query_table.column("person_id"))
    cameras = np.empty(len(names), np.int64)
    cameras[names.index(image_table, "image")] = image_table.integers("camera_id")
    return (
        tables.detections_from(tables.open_detections(detections, embeddings=True), names),
        tables.queries_from(query_table, names, people),
        tables.ground_truth_from(box_table, names, people),
        cameras,
    )


def _budget(
    found: Detections,
    n_images: int,
    boxes_per_image: float | None,
    per_image_top_k: bool,
    score_threshold: float,
) -> tuple[IntArray | None, float | None]:
    """The rows to keep, None = all, and the score threshold, None = none."""
    if boxes_per_image is None:
        if per_image_top_k:
            raise PersonSearchError("--per-image-top-k needs --boxes-per-image K")
        return None, score_threshold
    if not per_image_top_k:
        return None, score_threshold_for(found.scores, n_images, boxes_per_image)
    if boxes_per_image != int(boxes_per_image):
        raise PersonSearchError(f"--per-image-top-k needs a whole number of boxes, not {boxes_per_image}")
    return top_k_of_each_image(found, int(boxes_per_image)), None


def _same_queries(table: tables.Table, protocol: pa.Table, path: Path) -> None:
    """Raises unless the table has the protocol's queries, counted from 0, in the protocol's images."""
    numbers = table.integers("query")
    expected = np.arange(protocol.num_rows)
    if not np.array_equal(numbers, expected):
        missing, unknown = np.setdiff1d(expected, numbers), np.setdiff1d(numbers, expected)
        parts = [f"lacks query {missing[0]} ({len(missing)} in all)"] * bool(len(missing))
        parts += [f"has query {unknown[0]}, which the protocol has not"] * bool(len(unknown))
        raise PersonSearchError(
            f"{table.path}: {' and '.join(parts)}; {path.name} has queries 0 to {len(expected) - 1}"
        )
    ours = np.array(table.column("image").to_pylist(), object)
    theirs = np.array(protocol["image_id"].to_pylist(), object)
    if (ours != theirs).any():
        query = int((ours != theirs).argmax())
        raise PersonSearchError(
            f"{table.path}: query {query} is in image {ours[query]!r}, "
            f"but {path.name} has it in {theirs[query]!r}"
        )


def _workers(threads: int) -> MapBlocks:
    return serially if threads == 1 else in_threads(threads)


def _search_numbers(result: SearchResult) -> dict[str, Any]:
    return result.metrics() | {
        "mINP": result.mean_inp,
        "queries": len(result),
        "score_threshold": result.score_threshold,
        "ambiguous": result.ambiguous,
        "queries_without_truth": result.without_truth,
    }


def _zheng_numbers(result: Zheng2017Result, bootstrap: int) -> dict[str, Any]:
    numbers: dict[str, Any] = result.metrics() | {
        "queries": len(result.ap),
        "score_threshold": result.score_threshold,
    }
    if bootstrap:
        interval = bootstrap_interval(result.ap, np.random.default_rng(0), draws=bootstrap)
        numbers["bootstrap"] = {"mAP": asdict(interval)}
    return numbers


def _beyond(
    task: SearchTask,
    queries: Queries,
    result: SearchResult,
    cbgm: str | None,
    rerank: bool,
    bootstrap: int,
    threads: int,
) -> dict[str, Any]:
    """What is asked for beside the standard numbers, each under a key of its own."""
    extra: dict[str, Any] = {}
    if cbgm is not None:
        k1, k2 = _two_numbers(cbgm)
        matched = with_context_matching(task, queries, k1, k2)
        extra["cbgm"] = run_search(matched, result.score_threshold, _workers(threads)).metrics()
    if rerank:
        renewed = run_search(with_k_reciprocal(task), result.score_threshold, _workers(threads))
        extra["rerank"] = renewed.metrics()
    if bootstrap:
        rng = np.random.default_rng(0)
        extra["bootstrap"] = {
            "mAP": asdict(bootstrap_interval(result.ap, rng, draws=bootstrap)),
            "top1": asdict(bootstrap_interval(result.hits(1), rng, draws=bootstrap)),
        }
    return extra


def _two_numbers(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise PersonSearchError(f"--cbgm takes two whole numbers such as 10,3; not {text!r}")
    return int(parts[0]), int(parts[1])


@contextmanager
def _spoken_warnings() -> Iterator[None]:
    """Prints what the tables' readers warn of, one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", tables.TableWarning)
        yield
    for warning in caught:
        typer.echo(f"warning: {warning.message}", err=True)


def _write(path: Path | None, numbers: dict[str, Any], clock: _Clock) -> None:
    if clock.seconds:
        numbers = numbers | {"seconds": clock.seconds}
    text = json.dumps(numbers, indent=2)
    typer.echo(text)
    if path is not None:
        path.write_text(text + "\n")


def _write_per_query(path: Path | None, result: SearchResult | Zheng2017Result) -> None:
    if path is not None:
        pq.write_table(pa.table(result.per_query()), path)
