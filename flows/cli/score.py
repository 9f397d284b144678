"""`personsearch score`: detections made by any software, scored by the community's protocols.

Files are Parquet tables; `personsearch_core/evaluation/tables.py` says which columns they have.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.json_file import writable
from flows.cli.options import finite
from flows.cli.protocol_files import default_cache, read_protocol
from flows.cli.score_compare import compare
from flows.cli.score_inputs import read_boxes, read_listed, read_prw
from flows.cli.score_options import MULTI_SHOT, rescored, standard_setting, sweep_settings
from flows.cli.score_output import (
    Clock,
    breakdown_figures,
    figures,
    spoken_warnings,
    standard_figures,
    sweep_figures,
    write,
    write_per_query,
)
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.front import evaluate
from personsearch_core.evaluation.parallel import in_threads
from personsearch_core.recipes import EvaluationRecipe

app = typer.Typer(no_args_is_help=True, help="Score detections made by any software.")
app.command("compare")(compare)

DetectionsFile = Annotated[Path, typer.Option(help="Parquet: image, x1, y1, x2, y2, score, embedding.")]
QueriesFile = Annotated[Path, typer.Option(help="Parquet: query, image, x1, y1, x2, y2, embedding.")]
ImagesFile = Annotated[Path, typer.Option(help="Parquet: all test images; PRW also camera_id.")]
BoxesFile = Annotated[Path, typer.Option(help="Parquet: ground truth image, x1, y1, x2, y2, person_id.")]
Threshold = Annotated[float, typer.Option(callback=finite, help="Keep detections with at least this score.")]
Json = Annotated[Path | None, typer.Option("--json", callback=writable, help="Write the numbers here.")]
PerQuery = Annotated[Path | None, typer.Option(help="Write a Parquet table with one row per query here.")]
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
    standard = replace(standard_setting(score_threshold), full_gallery=full_gallery)
    further = rescored(standard, cbgm, cbgm_lift, rerank, rerank_with)
    clock = Clock()
    with spoken_warnings():
        with clock.step("read"):
            found_table = tables.open_detections(detections, embeddings=True)
            query_table = tables.open_queries(queries, person_id=False)
        with clock.step("protocol"):
            protocol = read_protocol(protocol_file, cache or default_cache())
        with clock.step("read"):
            files = read_listed(found_table, query_table, protocol, protocol_file, whole=full_gallery)
    with clock.step("evaluate"):
        recipe = EvaluationRecipe(protocol="cuhk_sysu", bootstrap_samples=bootstrap)
        results = evaluate(
            recipe, files.inputs, settings=[standard, *further], map_blocks=in_threads(threads)
        )
    first, *others = results.searches
    numbers = standard_figures(first) | {found.setting.name: figures(found) for found in others}
    if breakdown:
        numbers |= breakdown_figures(first, files.inputs)
    write(json_file, numbers, clock)
    write_per_query(per_query, first, files.query)


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
        typer.Option(
            callback=finite,
            help="Choose the score threshold that leaves this many boxes per image on average.",
        ),
    ] = None,
    per_image_top_k: Annotated[
        bool, typer.Option("--per-image-top-k", help="Instead keep each image's K best.")
    ] = False,
    score_threshold: Threshold = 0.5,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Also with these numbers of boxes per image (as --per-image-top-k has it); names the best.",
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
    standard = standard_setting(score_threshold, boxes_per_image, per_image_top_k=per_image_top_k)
    further = rescored(standard, cbgm, cbgm_lift, rerank, rerank_with)
    if multi_shot:
        further.append(replace(standard, name=MULTI_SHOT, multi_shot=True))
    if protocol == "zheng2017" and (further or breakdown):
        raise PersonSearchError("zheng2017 goes without --cbgm, --rerank, --multi-shot and --breakdown")
    budgets = sweep_settings(sweep, standard) if sweep is not None else {}
    clock = Clock()
    with spoken_warnings(), clock.step("read"):
        files = read_prw(detections, queries, images, boxes)
    with clock.step("evaluate"):
        if protocol == "zheng2017":
            recipe = EvaluationRecipe(protocol="zheng2017", bootstrap_samples=bootstrap)
        else:
            recipe = EvaluationRecipe(cross_camera=cross_camera, bootstrap_samples=bootstrap)
        results = evaluate(
            recipe,
            files.inputs,
            settings=[standard, *further, *budgets.values()],
            detection_at=None,
            map_blocks=in_threads(threads),
        )
    by_name = {found.setting.name: found for found in results.searches}
    first = results.searches[0]
    numbers = standard_figures(first) | {each.name: figures(by_name[each.name]) for each in further}
    if budgets:
        numbers["sweep"] = sweep_figures({k: by_name[each.name] for k, each in budgets.items()})
    if breakdown:
        numbers |= breakdown_figures(first, files.inputs)
    clock.seconds.setdefault("protocol", 0.0)
    write(json_file, numbers, clock)
    write_per_query(per_query, first, files.query)


@app.command("detection")
def detection(
    detections: DetectionsFile,
    images: ImagesFile,
    boxes: BoxesFile,
    score_threshold: Threshold = 0.5,
    json_file: Json = None,
) -> None:
    """Detection by the person-search rule from a score on, and by pycocotools; no embeddings are needed."""
    clock = Clock()
    with spoken_warnings(), clock.step("read"):
        inputs = read_boxes(detections, images, boxes)
    with clock.step("evaluate"):
        result = evaluate(EvaluationRecipe(), inputs, settings=(), detection_at=score_threshold).detection
    assert result is not None
    clock.seconds.setdefault("protocol", 0.0)
    write(json_file, result.metrics() | {"queries": 0, "score_threshold": score_threshold}, clock)
