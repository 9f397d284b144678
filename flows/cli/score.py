"""`personsearch score`: detections made by any software, scored by the community's protocols.

Files are Parquet tables; `personsearch_core/evaluation/tables.py` says which columns they have.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import typer

from flows.cli.finite import finite
from flows.cli.json_file import writable
from flows.cli.score_beyond import Beyond, numbers_of, workers
from flows.cli.score_compare import compare
from flows.cli.score_output import (
    Clock,
    search_numbers,
    spoken_warnings,
    write,
    write_per_query,
    zheng_numbers,
)
from flows.cli.score_prw import (
    multi_shot_result,
    original_result,
    parts_of,
    person_search_task,
    prw_parts,
    read_prw,
    swept,
)
from flows.protocol_files import default_cache, read_protocol
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.boxes_per_image import (
    score_threshold_for,
    top_k_of_each_image,
)
from personsearch_core.evaluation.cuhk_sysu import cuhk_sysu_task
from personsearch_core.evaluation.ranking import SearchResult
from personsearch_core.evaluation.records import Detections, IntArray
from personsearch_core.evaluation.search import run_search
from personsearch_core.evaluation.zheng2017 import Zheng2017Result

app = typer.Typer(no_args_is_help=True, help="Score detections made by any software.")
app.command("compare")(compare)

DetectionsFile = Annotated[Path, typer.Option(help="Parquet: image, x1, y1, x2, y2, score, embedding.")]
QueriesFile = Annotated[Path, typer.Option(help="Parquet: query, image, x1, y1, x2, y2, embedding.")]
ImagesFile = Annotated[Path, typer.Option(help="Parquet: all test images; PRW also camera_id.")]
BoxesFile = Annotated[Path, typer.Option(help="Parquet: ground truth image, x1, y1, x2, y2, person_id.")]
Threshold = Annotated[float, typer.Option(callback=finite, help="Keep detections with at least this score.")]
Json = Annotated[Path | None, typer.Option("--json", callback=writable, help="Write the numbers here.")]
PerQuery = Annotated[Path | None, typer.Option(help="Write a Parquet table with one row a query here.")]
Cbgm = Annotated[
    str | None, typer.Option(metavar="K1,K2", help="Also rank with context matching: 10,3 or 30,4.")
]
CbgmLift = Annotated[
    Literal["max", "sum"], typer.Option(help="What --cbgm gives the match: SeqNet's code, or its paper.")
]
Rerank = Annotated[bool, typer.Option("--rerank", help="Also rank with k-reciprocal re-ranking.")]
RerankWith = Annotated[
    str | None,
    typer.Option(metavar="K1,K2,LAMBDA,DEPTH", help="The same with other values than 20,6,0.3,200."),
]
Bootstrap = Annotated[int, typer.Option(min=0, help="Draws for 95% intervals over queries; 0 = none.")]
Breakdown = Annotated[bool, typer.Option("--breakdown", help="Also by box height, crowd and camera pair.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that rank blocks of queries.")]


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
    cbgm_lift: CbgmLift = "max",
    rerank: Rerank = False,
    rerank_with: RerankWith = None,
    bootstrap: Bootstrap = 0,
    breakdown: Breakdown = False,
    threads: Threads = 1,
) -> None:
    """CUHK-SYSU's search protocol; `query` counts the protocol file's queries from 0."""
    clock = Clock()
    with spoken_warnings():
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
        result = run_search(task, score_threshold, workers(threads))
    wanted = Beyond(cbgm, cbgm_lift, rerank, rerank_with, bootstrap, threads)
    extra = wanted.numbers(task, people, result)
    if breakdown:
        in_image = np.bincount(task.gallery.image, minlength=len(images))
        extra |= parts_of(result, people, in_image)
    write(json_file, search_numbers(result) | extra, clock)
    write_per_query(per_query, result, query_table.integers("query"))


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
        float | None,
        typer.Option(callback=finite, help="Choose the threshold that leaves so many boxes an image."),
    ] = None,
    per_image_top_k: Annotated[
        bool, typer.Option("--per-image-top-k", help="Instead keep each image's K best.")
    ] = False,
    score_threshold: Threshold = 0.5,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Also with so many boxes an image (--per-image-top-k holds); names the best.",
        ),
    ] = None,
    multi_shot: Annotated[bool, typer.Option("--multi-shot", help="Also pool a person's queries.")] = False,
    json_file: Json = None,
    per_query: PerQuery = None,
    cbgm: Cbgm = None,
    cbgm_lift: CbgmLift = "max",
    rerank: Rerank = False,
    rerank_with: RerankWith = None,
    bootstrap: Bootstrap = 0,
    breakdown: Breakdown = False,
    threads: Threads = 1,
) -> None:
    """PRW's search protocols. What --sweep, --cbgm and the like give stands beside the standard numbers."""
    wanted = Beyond(cbgm, cbgm_lift, rerank, rerank_with, bootstrap, threads)
    if protocol == "zheng2017" and (wanted.rescores or multi_shot or breakdown):
        raise PersonSearchError("zheng2017 goes without --cbgm, --rerank, --multi-shot and --breakdown")
    clock = Clock()
    with spoken_warnings(), clock.step("read"):
        files = read_prw(detections, queries, images, boxes)
    with clock.step("protocol"):
        n_images = len(files.cameras)
        kept, threshold = _budget(files.found, n_images, boxes_per_image, per_image_top_k, score_threshold)
    shown = files if kept is None else replace(files, found=files.found.select(kept))
    result: SearchResult | Zheng2017Result
    with clock.step("evaluate"):
        if protocol == "zheng2017":
            result = original_result(files, threshold, kept)
        else:
            task = person_search_task(shown, threshold, cross_camera)
            result = run_search(task, threshold, workers(threads))
    if isinstance(result, Zheng2017Result):
        numbers = zheng_numbers(result, bootstrap)
    else:
        numbers = search_numbers(result)
        numbers |= wanted.numbers(task, files.people, result)
    if sweep is not None:
        numbers["sweep"] = swept(files, numbers_of(sweep), protocol, cross_camera, per_image_top_k)
    if multi_shot:
        numbers["multi_shot"] = multi_shot_result(shown, threshold, cross_camera).metrics()
    if breakdown and isinstance(result, SearchResult):
        numbers |= prw_parts(shown, result, threshold)
    write(json_file, numbers, clock)
    write_per_query(per_query, result, files.query)


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

    clock = Clock()
    with spoken_warnings(), clock.step("read"):
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
    write(json_file, result.metrics() | {"queries": 0, "score_threshold": score_threshold}, clock)


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
        fault = f"lacks query {missing[0]}" if len(missing) else f"has a query {unknown[0]}"
        raise PersonSearchError(
            f"{table.path}: {fault}; {path.name} has queries 0 to {len(expected) - 1}, "
            f"of which {len(missing)} are missing, and {len(unknown)} others are here"
        )
    ours = np.array(table.column("image").to_pylist(), object)
    theirs = np.array(protocol["image_id"].to_pylist(), object)
    if (ours != theirs).any():
        query = int((ours != theirs).argmax())
        raise PersonSearchError(
            f"{table.path}: query {query} is in image {ours[query]!r}, "
            f"but {path.name} has it in {theirs[query]!r}"
        )
