"""What later stages miss in the datasets, found by reading the snapshots and decoding images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_catalog.adapters import load_adapter
from data_catalog.decode_checks import faults_in_short, memory_of, undecodable_images, undecodable_rejects
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
from flows.console import told
from flows.plan.views import ViewSpec, view_digest
from flows.stages.base import Stage, ingest_name
from flows.wording import counted
from personsearch_core.sampling import largest_shares
from storage.store import Artifact, Store

_SECONDS_BETWEEN_LINES = 10.0


def faults_of(
    config: Config,
    stages: Sequence[Stage],
    artifacts: Mapping[str, Artifact],
    store: Store,
    decode: bool,
) -> Iterator[str]:
    """A sentence per fault of the datasets that are there, by their ingest stages; see `check_ready`."""
    for name, source in config.datasets.items():
        made = artifacts.get(ingest_name(name))
        if made is not None and not source.allow_empty:
            yield from outcome_faults(Snapshot(store.here(made).path))
    images: dict[str, dict[str, str]] = {}
    shares = _identities_per_batch(config, stages, artifacts, store)
    for stage in stages:
        for ref in stage.inputs.values():
            if ref.view is None or ref.stage not in artifacts:
                continue
            dataset, made = ref.view.dataset, artifacts[ref.stage]
            try:
                view_digest(made, ref.view, store)
                view = ref.view.of(store.here(made).path)
                found = list(_view_faults(stage, ref.view, view, shares.get(stage.name, 0)))
            except CatalogError as error:
                found = [str(error).removeprefix(f"{dataset}: ")]
            yield from (f"{dataset}: {fault}{_missing_file(config, ref.view)}" for fault in found)
            if not found and ref.view.use != "truth":
                images.setdefault(dataset, {}).update(image_digests(view.images))
    if decode:
        for dataset, digests in images.items():
            made = artifacts[ingest_name(dataset)]
            snapshot = Snapshot(store.here(made).path)
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
            people.append(identities_in_pairs(ref.view.of(store.here(made).path)))
    except (KeyError, CatalogError):
        return {}  # `faults_of` says so of the view itself
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
        images = counted(len(faults), "image")
        shown = faults_in_short({str(root / path): fault for path, fault in faults.items()})
        yield (
            f"{dataset}: {images} cannot be decoded: {shown}. Replace them, or exclude "
            f"them with datasets.{dataset}.options.leave_out"
        )
