"""Small datasets, and a way to ingest them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data_catalog.adapters import load_adapter
from data_catalog.hash_cache import HashCache
from data_catalog.ingest import DatasetRoot, fingerprint, ingest
from data_catalog.snapshot import Snapshot
from data_catalog.synthetic import Mot17Spec, PrwSpec, write_mot17, write_prw

Ingest = Callable[..., Snapshot]

SMALL_PRW = PrwSpec(
    train_images=6, test_images=4, width=96, height=72, train_identities=5, test_identities=4, people=(2, 3)
)
SMALL_MOT = Mot17Spec(sequences=2, frames=3, width=96, height=72, people=(2, 3))


@pytest.fixture
def ingest_into(tmp_path: Path) -> Ingest:
    """ingest_into(root, adapter, images=True, allow_empty=True, **options): a snapshot in its own folder."""
    made = 0

    def run(
        root: Path,
        adapter: str,
        *,
        images: bool = True,
        allow_empty: bool = True,
        name: str = "",
        **options: str,
    ) -> Snapshot:
        nonlocal made
        made += 1
        work = tmp_path / f"snapshot-{made}"
        source = DatasetRoot(root, load_adapter(adapter), options, images)
        found = fingerprint(source, HashCache(None))
        ingest(source, work, found, name=name or adapter, allow_empty=allow_empty)
        return Snapshot(work)

    return run


@pytest.fixture
def prw_root(tmp_path: Path) -> Path:
    """A small synthetic PRW of one's own, free to be changed."""
    root = tmp_path / "prw"
    write_prw(root, SMALL_PRW, seed=3)
    return root


@pytest.fixture
def mot_root(tmp_path: Path) -> Path:
    """A small synthetic MOT17 of one's own, free to be changed."""
    root = tmp_path / "mot17"
    write_mot17(root, SMALL_MOT, seed=3)
    return root
