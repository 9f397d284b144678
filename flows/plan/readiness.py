"""Checks of the datasets right after the ingest, before any training: whether later stages can use them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_catalog.adapters import load_adapter
from data_catalog.decode_checks import memory_of, undecodable_images, undecodable_rejects
from data_catalog.duplicates import images_in_both
from data_catalog.errors import CatalogError
from data_catalog.outcome import outcome_faults
from data_catalog.readiness import (
    identities_in_pairs,
    identity_faults,
    protocol_faults,
    training_faults,
)
from data_catalog.snapshot import Snapshot, image_digests
from data_catalog.views import View
from flows.config.models import Config
from flows.config.sections import ViewRef
from flows.errors import StageError
from flows.plan.memo import Memo
from flows.plan.views import ViewSpec, view_digest
from flows.run.console import told
from flows.stages.base import Stage, ingest_name
from personsearch_core.sampling import largest_shares
from storage.store import Artifact, Store

log = logging.getLogger(__name__)

READY = "ready"
_NONE_SHARED = "none"
_SHOWN = 3
_SECONDS_BETWEEN_LINES = 10.0


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
        faults = list(dict.fromkeys(_faults(config, stages, there, store, decode)))
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


def _faults(
    config: Config,
    stages: Sequence[Stage],
    artifacts: Mapping[str, Artifact],
    store: Store,
    decode: bool,
) -> Iterator[str]:
    for name, source in config.datasets.items():
        made = artifacts.get(ingest_name(name))
        if made is not None and not source.allow_empty:
            yield from outcome_faults(Snapshot(store.local_path(made.kind, made.key)))
    images: dict[str, dict[str, str]] = {}
    shares = _identities_per_batch(config, stages, artifacts, store)
    for stage in stages:
        for ref in stage.inputs.values():
            if ref.view is None or ref.stage not in artifacts:
                continue
            dataset, made = ref.view.dataset, artifacts[ref.stage]
            try:
                view_digest(made, ref.view, store)
                view = ref.view.of(store.local_path(made.kind, made.key))
                found = list(_view_faults(stage, ref.view, view, shares.get(stage.name, 0)))
            except CatalogError as error:
                found = [str(error).removeprefix(f"{dataset}: ")]
            yield from (f"{dataset}: {fault}{_missing_file(config, ref.view)}" for fault in found)
            if not found and ref.view.use != "truth":
                images.setdefault(dataset, {}).update(image_digests(view.images))
    if decode:
        for dataset, digests in images.items():
            made = artifacts[ingest_name(dataset)]
            snapshot = Snapshot(store.local_path(made.kind, made.key))
            yield from _undecodable(snapshot, dataset, config.datasets[dataset].root, digests, store)


def _identities_per_batch(
    config: Config, stages: Sequence[Stage], artifacts: Mapping[str, Artifact], store: Store
) -> dict[str, int]:
    """How many identities a batch takes at most of each features stage; none if a dataset cannot be read."""
    refs = {stage.name: stage.inputs["people"] for stage in stages if stage.kind == "features"}
    if config.reid is None or len(refs) < 2:
        return dict.fromkeys(refs, config.reid.identities_per_batch if config.reid else 0)
    people = []
    try:
        for ref in refs.values():
            made = artifacts[ref.stage]
            assert ref.view is not None
            people.append(identities_in_pairs(ref.view.of(store.local_path(made.kind, made.key))))
    except (KeyError, CatalogError):
        return {}  # `_faults` says so of the view itself
    amounts = [entry.amount for entry in config.reid.entries]
    return dict(zip(refs, largest_shares(amounts, people, config.reid.identities_per_batch), strict=True))


def _view_faults(stage: Stage, spec: ViewSpec, view: View, per_batch: int) -> Iterator[str]:
    if stage.kind == "detector":
        yield from training_faults(view)
    if stage.kind == "detector" and spec.use == "people":
        yield from identity_faults(view, per_batch=0)
    if stage.kind == "features":
        yield from identity_faults(view, per_batch)
    for protocol in spec.protocols:
        yield from protocol_faults(view, protocol)


def _missing_file(config: Config, spec: ViewSpec) -> str:
    """The file that would hold a protocol, where the adapter says which, and it is not there."""
    source = config.datasets[spec.dataset]
    files: Mapping[str, str] = getattr(load_adapter(source.adapter), "protocol_files", {})
    missing = [
        files[name] for name in spec.protocols if name in files and not (source.root / files[name]).exists()
    ]
    return f" ({source.root / missing[0]} is missing)" if missing else ""


def _undecodable(
    snapshot: Snapshot, dataset: str, root: Path, digests: Mapping[str, str], store: Store
) -> Iterator[str]:
    said_at = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > _SECONDS_BETWEEN_LINES:
            told.info("%s: checked that %s of %s images decode", dataset, f"{done:,}", f"{total:,}")
            said_at = time.monotonic()

    faults = undecodable_images(root, digests, memory_of(store.root), progress)
    faults |= undecodable_rejects(root, snapshot)
    if faults:
        shown = "; ".join(f"{root / path}: {fault}" for path, fault in sorted(faults.items())[:_SHOWN])
        more = "; ..." if len(faults) > _SHOWN else ""
        yield (
            f"{dataset}: {len(faults):,} images cannot be decoded: {shown}{more}. Replace them, or exclude "
            f"them with datasets.{dataset}.options.leave_out"
        )


def _check_test_images(config: Config, artifacts: Mapping[str, Artifact], store: Store) -> None:
    """Compare the bytes of all training images with those of all test images; no image is opened.

    `artifacts` are those of the ingest stages that there are, by stage name. Raises StageError for an image
    that is in both, unless `run.test_images_in_training` says `warn`.
    """
    training = [*config.training_views("detector"), *config.training_views("reid")]
    pinned = _pinned_snapshots(config, store)
    test = [entry.test for entry in config.evaluation]
    if not test:
        return
    memo = Memo(store.root, "leakage", _images_compared(training, test, artifacts, pinned))
    if memo.read() == _NONE_SHARED:
        return
    trained = [*_views(training, artifacts, store), *_pinned_views(pinned, store)]
    found = images_in_both(trained, _views(test, artifacts, store))
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


def _pinned_snapshots(config: Config, store: Store) -> list[tuple[Artifact, str]]:
    """What pinned models were trained on, if the store still has it: snapshots of then, and their splits."""
    learnt = {each for pin in config.pins.values() for each in pin.trained_on}
    named = sorted((each.snapshot, each.split) for each in learnt if each.snapshot and each.split)
    found = ((store.peek(*snapshot.split("/")), split) for snapshot, split in named)
    return [(artifact, split) for artifact, split in found if artifact is not None]


def _pinned_views(pinned: list[tuple[Artifact, str]], store: Store) -> list[View]:
    return [View(Snapshot(store.local_path(made.kind, made.key)), split) for made, split in pinned]


def _images_compared(
    training: list[ViewRef],
    test: list[ViewRef],
    artifacts: Mapping[str, Artifact],
    pinned: list[tuple[Artifact, str]],
) -> dict[str, Any]:
    """What the comparison's outcome follows from."""

    def of(refs: list[ViewRef]) -> list[list[str | None]]:
        named = {(ingest_name(ref.dataset), ref.split) for ref in refs}
        made = ((artifacts.get(name), split) for name, split in named)
        return sorted([artifact.content_digest, split] for artifact, split in made if artifact is not None)

    then = sorted([artifact.content_digest, split] for artifact, split in pinned)
    return {"training": [*of(training), *then], "test": of(test)}


def _views(refs: list[ViewRef], artifacts: Mapping[str, Artifact], store: Store) -> list[View]:
    views = []
    for dataset, split in sorted({(ref.dataset, ref.split) for ref in refs}):
        ingested = artifacts.get(ingest_name(dataset))
        if ingested is not None:
            views.append(View(Snapshot(store.local_path(ingested.kind, ingested.key)), split))
    return views
