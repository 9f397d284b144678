"""Images of a test view among the training views: they would make a result better than it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from data_catalog.duplicates import images_in_both
from data_catalog.snapshot import Snapshot
from data_catalog.views import View
from flows.config.models import Config, ViewRef
from flows.errors import StageError
from flows.plan.memo import Memo
from flows.stages.base import ingest_name
from storage.store import Artifact, Store

log = logging.getLogger(__name__)

SHOWN = 3
NONE_SHARED = "none"


def check_test_images(config: Config, artifacts: Mapping[str, Artifact], store: Store) -> None:
    """Compare the bytes of all training images with those of all test images; no image is opened.

    `artifacts` are those of the ingest stages that there are, by stage name. Raises StageError for an image
    that is in both, unless `run.test_images_in_training` says `warn`.
    """
    training = [*config.detector.train, *([config.reid.train] if config.reid else [])]
    test = [entry.test for entry in config.evaluation]
    if not test:
        return
    memo = Memo(store.root, "leakage", _question(training, test, artifacts))
    if memo.read() == NONE_SHARED:
        return
    found = images_in_both(_views(training, artifacts, store), _views(test, artifacts, store))
    if not len(found):
        memo.write(NONE_SHARED)
        return
    shown = "; ".join(
        f"{row['test']}/{row['test_image']} is {row['training']}/{row['training_image']}"
        for row in found.slice(0, SHOWN).to_pylist()
    )
    message = f"{len(found)} test images are training images: {shown}{'; ...' if len(found) > SHOWN else ''}"
    if config.run.test_images_in_training == "refuse":
        raise StageError(
            f"{message}. Results would look better than they are: train on other views, or set "
            "run.test_images_in_training=warn"
        )
    log.warning("%s", message)


def _question(
    training: list[ViewRef], test: list[ViewRef], artifacts: Mapping[str, Artifact]
) -> dict[str, Any]:
    """What the comparison's outcome follows from."""

    def of(refs: list[ViewRef]) -> list[list[str | None]]:
        named = {(ingest_name(ref.dataset), ref.split) for ref in refs}
        made = ((artifacts.get(name), split) for name, split in named)
        return sorted([artifact.content_digest, split] for artifact, split in made if artifact is not None)

    return {"training": of(training), "test": of(test)}


def _views(refs: list[ViewRef], artifacts: Mapping[str, Artifact], store: Store) -> list[View]:
    views = []
    for dataset, split in sorted({(ref.dataset, ref.split) for ref in refs}):
        ingested = artifacts.get(ingest_name(dataset))
        if ingested is not None:
            views.append(View(Snapshot(store.local_path(ingested.kind, ingested.key)), split))
    return views
