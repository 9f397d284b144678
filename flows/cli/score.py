"""`personsearch score`: score detections from any software by the standard protocols.

Inputs are Parquet tables; `personsearch_core/evaluation/tables.py` documents their columns.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.json_file import Json, to_write
from flows.cli.options import finite
from flows.cli.protocol_files import Subsets, default_cache, read_protocol, read_subsets
from flows.cli.score_compare import compare
from flows.cli.score_inputs import PROTOCOL, read_boxes, read_listed, read_prw
from flows.cli.score_options import MULTI_SHOT, STANDARD_THRESHOLD, rescored, standard_setting, sweep_settings
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
from flows.cli.score_readings import AllReadings, PublishedNumbers, Wanted, score_readings
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.front import evaluate
from personsearch_core.evaluation.parallel import in_threads
from personsearch_core.evaluation.readings import (
    LOW_RESOLUTION,
    OCCLUSION,
    cuhk_sysu_readings,
    prw_readings,
)
from personsearch_core.evaluation.settings import MatchingRules
from personsearch_core.recipes import EvaluationRecipe

app = typer.Typer(no_args_is_help=True, help="Score detections and embeddings from any software.")
app.command("compare")(compare)

DetectionsFile = Annotated[Path, typer.Option(help="Parquet: image, x1, y1, x2, y2, score, embedding.")]
QueriesFile = Annotated[Path, typer.Option(help="Parquet: query, image, x1, y1, x2, y2, embedding.")]
ImagesFile = Annotated[
    Path, typer.Option(help="Parquet: image, for every test image; PRW also needs camera_id.")
]
BoxesFile = Annotated[Path, typer.Option(help="Parquet, ground truth: image, x1, y1, x2, y2, person_id.")]
Threshold = Annotated[float, typer.Option(callback=finite, help="Minimum detection score.")]
PerQuery = Annotated[
    Path | None,
    typer.Option(help="Write one row per query to this Parquet file.", callback=to_write("--per-query")),
]
Cbgm = Annotated[
    str | None,
    typer.Option(
        metavar="K1,K2", help="Also rank with context bipartite graph matching, such as 10,3 or 30,4."
    ),
]
CbgmLift = Annotated[
    Literal["max", "sum"],
    typer.Option(help="Similarity that --cbgm gives a match: max as in SeqNet's code, sum as in its paper."),
]
Rerank = Annotated[bool, typer.Option("--rerank", help="Also rank with k-reciprocal re-ranking.")]
RerankWith = Annotated[
    str | None,
    typer.Option(
        metavar="K1,K2,LAMBDA,DEPTH", help="Like --rerank, with these values instead of 20,6,0.3,200."
    ),
]
Bootstrap = Annotated[
    int, typer.Option(min=0, help="Number of bootstrap samples for 95% intervals over queries; 0 for none.")
]
Breakdown = Annotated[
    bool, typer.Option("--breakdown", help="Also report by box height, crowdedness and camera pair.")
]
Threads = Annotated[int, typer.Option(min=1, help="Number of threads.")]


@app.command("cuhk-sysu")
def cuhk_sysu(
    detections: DetectionsFile,
    queries: QueriesFile,
    protocol_file: Annotated[Path, typer.Option(help="TestG50.mat ... TestG4000.mat.")],
    score_threshold: Threshold = STANDARD_THRESHOLD,
    full_gallery: Annotated[
        bool, typer.Option("--full-gallery", help="Rank all test images; needs TestG50.mat.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Cache folder for parsed protocol files.")] = None,
    json_file: Json = None,
    per_query: PerQuery = None,
    cbgm: Cbgm = None,
    cbgm_lift: CbgmLift = "max",
    rerank: Rerank = False,
    rerank_with: RerankWith = None,
    bootstrap: Bootstrap = 0,
    breakdown: Breakdown = False,
    all_readings: AllReadings = False,
    published: PublishedNumbers = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="For --all-readings: Parquet, ground truth: image, x1, y1, x2, y2, person_id, embedding."
        ),
    ] = None,
    threads: Threads = 1,
) -> None:
    """Score by CUHK-SYSU's search protocol. `query` numbers the queries of the protocol file from 0.

    Example: personsearch score cuhk-sysu --detections det.parquet --queries q.parquet
    --protocol-file TestG100.mat
    """
    standard = replace(standard_setting(score_threshold), full_gallery=full_gallery)
    further = rescored(standard, cbgm, cbgm_lift, rerank, rerank_with)
    others = {
        "--score-threshold": score_threshold != STANDARD_THRESHOLD,
        "--full-gallery": full_gallery,
        "--breakdown": breakdown,
        "--per-query": per_query is not None,
    }
    wanted = Wanted.of(all_readings, published, others)
    if boxes is not None and not wanted:
        raise PersonSearchError("--boxes is for --all-readings only")
    clock = Clock()
    with spoken_warnings():
        with clock.step("read"):
            found_table = tables.open_detections(detections, embeddings=True)
            query_table = tables.open_queries(queries, person_id=False)
        with clock.step("protocol"):
            protocol = read_protocol(protocol_file, cache or default_cache())
            subsets = read_subsets(protocol_file, cache or default_cache()) if wanted else Subsets()
        with clock.step("read"):
            files = read_listed(
                found_table, query_table, protocol, protocol_file, subsets, boxes, whole=full_gallery
            )
    if wanted:
        score_readings(
            wanted,
            EvaluationRecipe(protocol="cuhk_sysu", bootstrap_samples=bootstrap),
            files.inputs,
            cuhk_sysu_readings(PROTOCOL, (OCCLUSION, LOW_RESOLUTION)),
            further,
            missing=files.missing,
            clock=clock,
            threads=threads,
            json_file=json_file,
        )
        return
    with clock.step("evaluate"):
        recipe = EvaluationRecipe(protocol="cuhk_sysu", bootstrap_samples=bootstrap)
        results = evaluate(
            recipe, files.inputs, settings=[standard, *further], map_blocks=in_threads(threads)
        )
    first, *more = results.searches
    numbers = standard_figures(first) | {found.setting.name: figures(found) for found in more}
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
        bool, typer.Option("--cross-camera", help="Leave out images of the query's camera.")
    ] = False,
    protocol: Annotated[
        Literal["person-search", "zheng2017"],
        typer.Option(help="The protocol that papers report, or the original one."),
    ] = "person-search",
    boxes_per_image: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            help="Choose the score threshold that leaves this many boxes per image on average.",
        ),
    ] = None,
    per_image_top_k: Annotated[
        bool,
        typer.Option("--per-image-top-k", help="Keep the K best boxes of each image instead of a threshold."),
    ] = False,
    score_threshold: Threshold = STANDARD_THRESHOLD,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Also score at these numbers of boxes per image and name the best; obeys --per-image-top-k.",
        ),
    ] = None,
    multi_shot: Annotated[
        bool, typer.Option("--multi-shot", help="Also score with all queries of a person pooled.")
    ] = False,
    json_file: Json = None,
    per_query: PerQuery = None,
    cbgm: Cbgm = None,
    cbgm_lift: CbgmLift = "max",
    rerank: Rerank = False,
    rerank_with: RerankWith = None,
    bootstrap: Bootstrap = 0,
    breakdown: Breakdown = False,
    all_readings: AllReadings = False,
    published: PublishedNumbers = None,
    threads: Threads = 1,
) -> None:
    """Score by PRW's search protocols. Options such as --sweep and --cbgm add to the standard numbers.

    Example: personsearch score prw --detections det.parquet --queries q.parquet
    --images images.parquet --boxes boxes.parquet
    """
    standard = standard_setting(score_threshold, boxes_per_image, per_image_top_k=per_image_top_k)
    further = rescored(standard, cbgm, cbgm_lift, rerank, rerank_with)
    if multi_shot:
        further.append(replace(standard, name=MULTI_SHOT, multi_shot=True))
    if protocol == "zheng2017" and (further or breakdown):
        raise PersonSearchError(
            "--protocol zheng2017 does not work with --cbgm, --rerank, --multi-shot or --breakdown"
        )
    budgets = sweep_settings(sweep, standard) if sweep is not None else {}
    others = {
        "--cross-camera": cross_camera,
        "--protocol": protocol != "person-search",
        "--boxes-per-image": boxes_per_image is not None,
        "--score-threshold": score_threshold != STANDARD_THRESHOLD,
        "--sweep": sweep is not None,
        "--multi-shot": multi_shot,
        "--breakdown": breakdown,
        "--per-query": per_query is not None,
    }
    wanted = Wanted.of(all_readings, published, others)
    clock = Clock()
    with spoken_warnings(), clock.step("read"):
        files = read_prw(detections, queries, images, boxes, truth_embeddings=bool(wanted))
    if wanted:
        score_readings(
            wanted,
            EvaluationRecipe(bootstrap_samples=bootstrap),
            files.inputs,
            prw_readings(PROTOCOL),
            further,
            clock=clock,
            threads=threads,
            json_file=json_file,
        )
        return
    how: dict[str, Any] = (
        {"cross_camera": cross_camera} if protocol == "person-search" else {"protocol": protocol}
    )
    recipe = EvaluationRecipe(**how, bootstrap_samples=bootstrap)
    settings = [
        replace(each, rules=MatchingRules.of(recipe)) for each in (standard, *further, *budgets.values())
    ]
    with clock.step("evaluate"):
        results = evaluate(
            recipe, files.inputs, settings=settings, detection_at=None, map_blocks=in_threads(threads)
        )
    first, *more = results.searches
    numbers = standard_figures(first) | {found.setting.name: figures(found) for found in more[: len(further)]}
    if budgets:
        numbers["sweep"] = sweep_figures(dict(zip(budgets, more[len(further) :], strict=True)))
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
    """Score detection alone, by the person-search rule and by pycocotools. Needs no embeddings.

    Example: personsearch score detection --detections det.parquet --images images.parquet
    --boxes boxes.parquet
    """
    clock = Clock()
    with spoken_warnings(), clock.step("read"):
        inputs = read_boxes(detections, images, boxes)
    with clock.step("evaluate"):
        result = evaluate(EvaluationRecipe(), inputs, settings=(), detection_at=score_threshold).detection
    assert result is not None
    clock.seconds.setdefault("protocol", 0.0)
    write(json_file, result.metrics() | {"queries": 0, "score_threshold": score_threshold}, clock)
