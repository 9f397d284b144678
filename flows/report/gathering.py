"""Collect the content of the page from the artifacts of a report stage."""

from __future__ import annotations

from collections.abc import Iterator

from flows.report.content import DatasetCounts, ReportContent, TestContent
from flows.report.feature_content import describe_features
from flows.report.looking import TestPixels, draw_scenes, draw_strips
from flows.report.origin import Lineage, describe_origin, trace
from flows.report.results import Results, result_figures, warnings
from flows.report.training_curves import training_figures
from flows.stages.report import ReportContext


def gather(context: ReportContext) -> ReportContent:
    """Read the artifacts and draw all figures.

    Raises StageError for an unreadable test image, StorageError for a damaged artifact.
    """
    inputs = context.inputs
    parts = len(inputs.evaluation) + 2
    tests = []
    for number, suffix in enumerate(inputs.evaluation, 1):
        tests.append(_test(context, suffix))
        context.progress(number, parts)
    assert context.store is not None, "a report is built in a store"
    lineage = trace(inputs.artifacts(), context.store)
    trained = {"detector": inputs.detector, "reid": inputs.reid}
    curves = {name: training_figures(artifact.path) for name, artifact in trained.items()}
    context.progress(parts - 1, parts)
    content = ReportContent(
        title=context.recipe.title,
        tests=tests,
        datasets=list(_datasets(lineage)),
        curves=curves,
        features=describe_features(inputs.features),
        origin=describe_origin(lineage),
    )
    context.progress(parts, parts)
    return content


def _test(context: ReportContext, suffix: str) -> TestContent:
    section, inputs = context.recipe, context.inputs
    results, test = Results.of(inputs.evaluation[suffix]), inputs.test[suffix]
    pixels = TestPixels(view=test.view, root=test.root, gallery=inputs.gallery[suffix].path)
    return TestContent(
        name=f"{test.spec.dataset}, {test.spec.split}",
        headline=results.headline,
        settings=results.settings,
        score_threshold=results.score_threshold,
        warnings=warnings(results),
        figures=result_figures(results),
        scenes=draw_scenes(pixels, section.scenes, results.score_threshold),
        strips=draw_strips(pixels, results, section.queries, section.ranks),
    )


def _datasets(lineage: Lineage) -> Iterator[DatasetCounts]:
    """For each dataset, one row for the whole and one per split."""
    for manifest in lineage.manifests.values():
        if manifest.kind != "ingest":
            continue
        by_split: dict[str, dict[str, int]] = {}
        for name, number in manifest.metrics["counts"].items():
            split, _, counted = name.rpartition(".")
            by_split.setdefault(split, {})[counted] = number
        for split in sorted(by_split, key=lambda split: (not split, split)):
            yield DatasetCounts(manifest.identity.recipe["dataset"], split, by_split[split])
