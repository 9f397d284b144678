"""The quick trials of tests/campaigns/failure_modes.py."""

from __future__ import annotations

import shutil

import pytest

from storage.local import LocalStore
from tests.campaigns.failure_modes import (
    Place,
    flipped_bytes,
    may_mount,
    read_only_store,
    two_runs_at_once,
)
from tests.campaigns.kill_campaign import digests
from tests.end_to_end.conftest import TinyRun

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("failures")
    shutil.copytree(tiny_run.folder, folder, dirs_exist_ok=True)
    return Place(folder, folder / tiny_run.config.name, digests(LocalStore(folder / "store")))


def test_every_flipped_byte_is_named(place: Place) -> None:
    assert "names each of" in flipped_bytes(place)


def test_two_runs_at_once_make_everything_once(place: Place) -> None:
    assert "each built once" in two_runs_at_once(place)


def test_a_read_only_store_is_named(place: Place) -> None:
    if not may_mount():
        pytest.skip("no permission to mount a read-only file system")
    assert "read-only" in read_only_store(place)
