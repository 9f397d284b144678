"""The page of a dataset's statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_catalog.snapshot import Snapshot
from data_catalog.statistics import MOST_BARS, Histogram, histogram, statistics
from flows.plan.catalog import StoreSnapshots
from flows.report.statistics_page import render_statistics
from tests.flows.report.invented import HOSTILE, ReportStore


def render(report_store: ReportStore, root: Path | None) -> str:
    artifact = StoreSnapshots(report_store.store).artifact(HOSTILE)
    return render_statistics(statistics(Snapshot(artifact.path)), artifact, root)


def test_says_where_the_numbers_come_from_and_shows_examples(report_store: ReportStore) -> None:
    snapshots = StoreSnapshots(report_store.store)
    root = snapshots.root(HOSTILE)
    assert root == report_store.config.datasets[HOSTILE].root
    page = render(report_store, root)
    for fact in (snapshots.artifact(HOSTILE).key, str(root), "prw, version", "licence", " UTC"):
        assert fact in page
    assert page.count('<figure class="scene">') == 4
    assert "<script" not in page


@pytest.mark.parametrize("root", [None, Path("nowhere")])
def test_without_the_images_it_says_so(report_store: ReportStore, root: Path | None) -> None:
    page = render(report_store, root)
    assert '<figure class="scene">' not in page
    assert "name it with --root" in page if root is None else "is missing; restore it" in page


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("values", [[1], [3, 4, 9], [1, 2, 2, 500], range(1000), [0, 0], [7.0] * 3])
def test_bins_are_equally_wide_and_hold_every_value(values: list[float], whole: bool) -> None:
    (found,) = histogram("Height", "pixels", "people", np.array(values, float), whole=whole)
    assert isinstance(found, Histogram)
    assert np.allclose(np.diff(found.edges), found.edges[1] - found.edges[0])
    assert len(found.counts) <= MOST_BARS + 2
    assert sum(found.counts) + found.above == len(values) == sum(count for _, count in found.rows())
    assert found.above == sum(value >= found.edges[-1] for value in values)


def test_a_value_far_off_is_counted_apart() -> None:
    values = np.array([*range(100), 10_000], float)
    (found,) = histogram("Boxes per identity", "boxes", "identities", values, whole=True)
    assert found.above == 1 and found.rows()[-1] == (f"{found.edges[-1]:g} or more", 1)
    assert histogram("Cameras", "cameras", "identities", np.zeros(0)) == []
