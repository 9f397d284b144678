"""PRW's protocol with listed galleries: equal to PRW's own where the other images are hidden."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drawn_galleries import prw_like
from personsearch_core.evaluation.listed_prw import listed_prw_task
from personsearch_core.evaluation.prw import evaluate_prw
from personsearch_core.evaluation.records import GalleryLists
from personsearch_core.evaluation.search import run_search
from personsearch_core.evaluation.task import HiddenImages

IMAGES = 120


@pytest.mark.parametrize("cross_camera", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.7])
def test_it_is_prw_without_what_is_not_listed(cross_camera: bool, threshold: float | None) -> None:
    rng = np.random.default_rng(4)
    found, queries, truth, cameras = prw_like(rng, IMAGES, 900, 40, dimensions=8)
    truth.person[:] = rng.integers(-1, 25, len(truth))
    queries.people()[:] = rng.integers(0, 27, len(queries))  # the last two are in no image
    listed = [rng.choice(IMAGES, rng.integers(0, IMAGES), replace=False) for _ in range(len(queries))]
    offsets = np.cumsum([0, *map(len, listed)])
    rows = offsets[-1]
    lists = GalleryLists(offsets, np.concatenate(listed), np.zeros(rows, bool), np.zeros((rows, 4)))
    task = listed_prw_task(
        found, queries, truth, cameras, lists, cross_camera=cross_camera, score_threshold=threshold
    )
    result = run_search(task, threshold)
    others = [np.setdiff1d(np.arange(IMAGES), images) for images in listed]
    hidden = HiddenImages(np.cumsum([0, *map(len, others)]), np.concatenate(others))
    expected = evaluate_prw(
        found,
        queries,
        truth,
        cameras,
        cross_camera=cross_camera,
        score_threshold=threshold,
        also_hidden=hidden,
    )
    for name in ("ap", "recall", "n_truths", "n_found", "n_gallery", "rank"):
        assert getattr(result, name) == pytest.approx(getattr(expected, name)), name
    assert 0 < result.mean_ap < 1
