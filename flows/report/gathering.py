"""Collect the content of the page from the artifacts of a report stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from data_catalog.errors import CatalogError
from flows.plan.catalog import StoreSnapshots
from flows.plan.pinned import PinnedModel
from flows.report.content import ReportContent, TestContent
from flows.report.detection_content import describe_detection
from flows.report.feature_content import describe_features
from flows.report.origin import Lineage, describe_origin, trace
from flows.report.results import EvaluationFiles, result_figures, shown_setting, varied_boxes, warnings
from flows.report.scenes import draw_test_scenes
from flows.report.strips import draw_strips
from flows.report.test_pixels import TestPixels
from flows.report.training_curves import training_figures
from flows.run.promotion import judge
from flows.stages.report import ReportContext
from storage.store import Artifact, Store

_VARIANTS = {
    "j2": "J2, which shares layers C1 and C2 with the detector",
    "j3": "J3, which shares layers C1 to C3 with the detector",
    "j4": "J4, which shares layers C1 to C4 with the detector",
    "disj": "Disj, which shares no layers with the detector and reads image crops",
}


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
    curves = {name: training_figures(each.path) for name, each in trained.items() if each is not None}
    context.progress(parts - 1, parts)
    content = ReportContent(
        title=context.recipe.title,
        lead=_lead(context, lineage),
        tests=tests,
        datasets=list(_datasets(lineage)),
        curves=curves,
        features={
            suffix.removeprefix(":"): describe_features(store) for suffix, store in inputs.features.items()
        },
        origin=replace(
            describe_origin(lineage, context.options.config),
            pinned=list(_pinned(context, context.store)),
            promotion=_promotion(context, context.store),
        ),
    )
    context.progress(parts, parts)
    return content


def _pinned(context: ReportContext, store: Store) -> Iterator[tuple[str, str]]:
    snapshots = StoreSnapshots(store)

    def today(dataset: str) -> Artifact | None:
        try:
            return snapshots.artifact(dataset)
        except CatalogError:  # it is not in this store
            return None

    for pin in context.options.pins:
        yield pin.identity.kind, str(PinnedModel.of(pin, today))


def _promotion(context: ReportContext, store: Store) -> str:
    """As the run decides after it has built the report."""
    inputs, section = context.inputs, context.options.promote
    if section is None:
        return ""
    tests = {f"evaluation{suffix}": each for suffix, each in inputs.evaluation.items()}
    return str(judge(section, inputs.reid or inputs.detector, tests, store))


def _test(context: ReportContext, suffix: str) -> TestContent:
    section, inputs = context.recipe, context.inputs
    results, test = EvaluationFiles.of(inputs.evaluation[suffix]), inputs.test[suffix]
    pixels = TestPixels(view=test.view, root=test.root, gallery=inputs.gallery[suffix].path)
    return TestContent(
        name=f"{test.spec.dataset}, {test.spec.split}",
        headline=results.headline,
        settings=[
            {
                **setting,
                "title": shown_setting(setting["name"]),
                "rank1_interval": results.rank1_intervals.get(setting["name"]),
            }
            for setting in results.settings
        ],
        readings=results.readings,
        readings_skipped=results.readings_skipped,
        score_threshold=results.score_threshold,
        warnings=warnings(results),
        varied_boxes=varied_boxes(results),
        figures=result_figures(results),
        detection=describe_detection(pixels.judged, results.headline, results.score_threshold),
        scenes=draw_test_scenes(pixels, section.scenes, results.score_threshold),
        strips=draw_strips(pixels, results, section.queries, section.ranks),
    )


def _lead(context: ReportContext, lineage: Lineage) -> str:
    """Which model, trained on what, tested on what."""
    options = context.options
    detector = lineage.manifests["detector"].identity.recipe
    backbone, joint = detector["detector"]["model"]["backbone"], detector.get("joint")
    variant = joint["roi"]["variant"] if joint else lineage.manifests["reid"].identity.recipe["variant"]
    together = " in the same steps" if joint else ""
    specs = (test.spec for test in context.inputs.test.values())
    tested = _listed(f"{spec.dataset}/{spec.split}" for spec in specs)
    return (
        f"How well people are found again in the images of {tested} by a RetinaNet detector "
        f"({backbone.replace('resnet', 'ResNet-')}) trained on {_listed(options.detector_trained_on)}, and a "
        f"re-ID branch ({_VARIANTS[variant]}) trained{together} on {_listed(options.reid_trained_on)}."
    )


def _listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _datasets(lineage: Lineage) -> Iterator[tuple[str, str, Mapping[str, int]]]:
    """For each dataset, one row for the whole and one per split."""
    for manifest in lineage.manifests.values():
        if manifest.kind != "ingest":
            continue
        by_split: dict[str, dict[str, int]] = {}
        for name, number in manifest.metrics["counts"].items():
            split, _, counted = name.rpartition(".")
            by_split.setdefault(split, {})[counted] = number
        for split in sorted(by_split, key=lambda split: (not split, split)):
            yield manifest.identity.recipe["dataset"], split, by_split[split]
