"""Checks of the datasets right after the ingest, before any training: whether later stages can use them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.config.models import Config
from flows.config.sections import ViewRef
from flows.errors import StageError
from flows.plan.memo import Memo
from flows.stages.base import Stage, ingest_name
from storage.store import Artifact, Store

if TYPE_CHECKING:
    from data_catalog.views import View

log = logging.getLogger(__name__)

READY = "ready"
_NONE_SHARED = "none"
_SHOWN = 3


def check_ready(
    config: Config,
    stages: Sequence[Stage],
    artifacts: Mapping[str, Artifact],
    store: Store,
    *,
    decode: bool = True,
) -> None:
    """Check that the stages can use the datasets that are there, once per content of them.

    `artifacts` are those of the ingest stages, by stage name. With `decode`, images that were never decoded
    are. Raises StageError with all that is missing, and for test images among the training images.
    """
    there = {name: artifact for name, artifact in artifacts.items() if artifact.kind == "ingest"}
    decode = decode and config.run.check_images
    memo = Memo(store.root, READY, _question(config, stages, there, decode))
    if memo.read() != READY:
        from flows.plan.faults import faults_of

        faults = list(dict.fromkeys(faults_of(config, stages, there, store, decode)))
        if faults:
            raise StageError("; ".join(faults))
        memo.write(READY)
    _check_test_images(config, there, store)


def _question(
    config: Config, stages: Sequence[Stage], artifacts: Mapping[str, Artifact], decode: bool
) -> dict[str, Any]:
    """What the outcome of the checks follows from."""
    entries = config.reid.entries if config.reid else ()
    return {
        "snapshots": {name: artifact.content_digest for name, artifact in artifacts.items()},
        "views": sorted(str(ref.view) for stage in stages for ref in stage.inputs.values() if ref.view),
        "allow_empty": [name for name, source in config.datasets.items() if source.allow_empty],
        "identities_per_batch": config.reid.identities_per_batch if config.reid else None,
        "decode": decode,
        **({"amounts": [entry.amount.model_dump() for entry in entries]} if len(entries) > 1 else {}),
    }


def _check_test_images(config: Config, artifacts: Mapping[str, Artifact], store: Store) -> None:
    """Compare the bytes of all training images with those of all test images; no image is opened.

    `artifacts` are those of the ingest stages that there are, by stage name. Raises StageError for an image
    that is in both, unless `run.test_images_in_training` says `warn`.
    """
    if not config.evaluation:
        return
    trained = _taken([*config.training_views("detector"), *config.training_views("reid")], artifacts)
    pinned = _pinned_snapshots(config, store)
    tested = _taken([entry.test for entry in config.evaluation], artifacts)
    question = {"training": [*_digests(trained), *_digests(pinned)], "test": _digests(tested)}
    memo = Memo(store.root, "leakage", question)
    if memo.read() == _NONE_SHARED:
        return
    from data_catalog.duplicates import images_in_both

    found = images_in_both(_views([*trained, *pinned], store), _views(tested, store))
    if not len(found):
        memo.write(_NONE_SHARED)
        return
    shown = "; ".join(
        f"{row['test']}/{row['test_image']} is {row['training']}/{row['training_image']}"
        for row in found.slice(0, _SHOWN).to_pylist()
    )
    message = f"{len(found)} test images are training images: {shown}{'; ...' if len(found) > _SHOWN else ''}"
    if config.run.test_images_in_training == "refuse":
        raise StageError(
            f"{message}. The results would be too good: train on other views, or set "
            "run.test_images_in_training=warn"
        )
    log.warning("%s", message)


def _taken(refs: Sequence[ViewRef], artifacts: Mapping[str, Artifact]) -> list[tuple[Artifact, str]]:
    """The snapshots that views are of, as far as they are there, and the splits; each view once."""
    named = sorted({(ref.dataset, ref.split) for ref in refs})
    made = ((artifacts.get(ingest_name(dataset)), split) for dataset, split in named)
    return [(artifact, split) for artifact, split in made if artifact is not None]


def _pinned_snapshots(config: Config, store: Store) -> list[tuple[Artifact, str]]:
    """What pinned models were trained on, if the store still has it: snapshots of then, and their splits."""
    learnt = {each for pin in config.pins.values() for each in pin.trained_on}
    named = sorted((each.snapshot, each.split) for each in learnt if each.snapshot and each.split)
    found = ((store.named(snapshot), split) for snapshot, split in named)
    return [(artifact, split) for artifact, split in found if artifact is not None]


def _digests(taken: Sequence[tuple[Artifact, str]]) -> list[list[str]]:
    return sorted([artifact.content_digest, split] for artifact, split in taken)


def _views(taken: Sequence[tuple[Artifact, str]], store: Store) -> list[View]:
    from data_catalog.snapshot import Snapshot
    from data_catalog.views import View

    return [View(Snapshot(store.here(artifact).path), split) for artifact, split in taken]
