"""Collect the content of the page from the artifacts of a report stage."""

from __future__ import annotations

from collections.abc import Iterator

from flows.config.models import ReportSection
from flows.report.content import DatasetCounts, ReportContent, TestContent
from flows.report.feature_content import describe_features
from flows.report.looking import TestPixels, draw_scenes, draw_strips
from flows.report.origin import Lineage, describe_origin, trace
from flows.report.results import Results, result_figures, warnings
from flows.report.training_curves import training_figures
from flows.stages.base import StageContext
from flows.stages.report import Options


def gather(context: StageContext) -> ReportContent:
    """Read the artifacts and draw all figures.

    Raises StageError for an unreadable test image, StorageError for a damaged artifact.
    """
    section = ReportSection.model_validate(context.recipe)
    artifacts = context.artifacts
    suffixes = [name.removeprefix("evaluation") for name in artifacts if name.startswith("evaluation")]
    parts = len(suffixes) + 2
    tests = []
    for number, suffix in enumerate(suffixes, 1):
        tests.append(_test(context, section, suffix))
        context.progress(number, parts)
    assert context.store is not None, "a report is built in a store"
    lineage = trace(artifacts, context.store)
    curves = {name: training_figures(artifacts[name].path) for name in ("detector", "reid")}
    context.progress(parts - 1, parts)
    content = ReportContent(
        title=section.title,
        tests=tests,
        datasets=list(_datasets(lineage)),
        curves=curves,
        features=describe_features(artifacts["features"]),
        origin=describe_origin(lineage),
    )
    context.progress(parts, parts)
    return content


def _test(context: StageContext, section: ReportSection, suffix: str) -> TestContent:
    results = Results.of(context.artifacts[f"evaluation{suffix}"])
    name = f"test{suffix}"
    spec = context.views[name]
    pixels = TestPixels(
        view=spec.of(context.artifacts[name].path),
        root=Options.model_validate(context.options).roots[name],
        gallery=context.artifacts[f"gallery{suffix}"].path,
    )
    return TestContent(
        name=f"{spec.dataset}, {spec.split}",
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
