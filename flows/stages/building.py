"""All stages of a config, in order. Stages that few configs have are imported for those."""

from __future__ import annotations

from collections.abc import Callable

from flows.config.foreign import ForeignFeatures
from flows.config.models import Config
from flows.stages import detections, detector, evaluation, features, gallery, ingest, reid, report
from flows.stages.base import Stage, feature_names, test_names


def build_stages(config: Config, ingest_stage: Callable[[Config, str], Stage] = ingest.stage) -> list[Stage]:
    """The stages that a config asks for, each after its inputs.

    `ingest_stage` may remember the stages of datasets that several configs share. By default it looks at the
    datasets' roots for their fingerprints; raises CatalogError when one is missing or damaged.
    """
    used, pins = config.used_datasets(), config.pins
    stages = [ingest_stage(config, name) for name in config.datasets if name in used]
    if config.foreign is not None:
        return [*stages, *_of_foreign(config, config.foreign)]
    if pins:
        from flows.stages import pinned
    stages.append(
        pinned.stage("detector", pins["detector"]) if "detector" in pins else detector.stage(config)
    )
    if "reid" in pins:
        stages.append(pinned.stage("reid", pins["reid"]))
    elif config.reid is not None:
        stages += [features.stage(config, name, view) for name, view in feature_names(config).items()]
        stages.append(reid.stage(config))
    for name, entry in test_names(config).items():
        stages += [
            detections.stage(config, name, entry),
            gallery.stage(config, name),
            evaluation.stage(config, name, entry),
        ]
    if config.evaluation:
        stages.append(report.stage(config))
    if config.speed is not None:
        from flows.stages import speed

        stages.append(speed.stage(config))
    return stages


def _of_foreign(config: Config, features: ForeignFeatures) -> list[Stage]:
    """The stages after the ingest where features come from elsewhere: without a detector and a report."""
    from flows.stages import foreign

    stages = [
        foreign.features_stage(config, name, view, features) for name, view in feature_names(config).items()
    ]
    stages.append(reid.stage(config))
    for name, entry in test_names(config).items():
        stages += [
            foreign.test_stage(config, name, entry, features),
            gallery.stage(config, name),
            evaluation.stage(config, name, entry),
        ]
    return stages
