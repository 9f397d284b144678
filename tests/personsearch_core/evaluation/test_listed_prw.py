"""PRW's protocol with listed galleries: equal to PRW's own where the other images are hidden."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drawn_galleries import prw_like
from personsearch_core.evaluation.matching import group_by_image, keep_by_score
from personsearch_core.evaluation.parallel import run_jobs, serially
from personsearch_core.evaluation.prw import search_in_lists, whole_search
from personsearch_core.evaluation.records import GalleryLists, ImageLists
from personsearch_core.evaluation.search import SearchTask

IMAGES = 120


@pytest.mark.parametrize("cross_camera", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.7])
def test_it_is_prw_without_what_is_not_listed(cross_camera: bool, threshold: float | None) -> None:
    rng = np.random.default_rng(4)
    found, queries, truth, cameras = prw_like(rng, IMAGES, 900, 40, dimensions=8)
    truth.person_id[:] = rng.integers(-1, 25, len(truth))
    queries.person_ids()[:] = rng.integers(0, 27, len(queries))  # the last two are in no image
    listed = [rng.choice(IMAGES, rng.integers(0, IMAGES), replace=False) for _ in range(len(queries))]
    offsets = np.cumsum([0, *map(len, listed)])
    rows = offsets[-1]
    lists = GalleryLists(offsets, np.concatenate(listed), np.zeros(rows, bool), np.zeros((rows, 4)))
    groups = cameras if cross_camera else np.arange(IMAGES)
    gallery = group_by_image(found, keep_by_score(found, threshold), groups)
    others = [np.setdiff1d(np.arange(IMAGES), images) for images in listed]
    hidden = ImageLists(np.cumsum([0, *map(len, others)]), np.concatenate(others))
    whole = whole_search(queries, truth, groups, hidden, "other" if cross_camera else "all")
    asked = (search_in_lists(queries, truth, groups, lists), whole)
    tasks = [SearchTask(queries, gallery, *each) for each in asked]
    blocks = run_jobs([task.job() for task in tasks], serially)
    result, expected = (t.result(part) for t, part in zip(tasks, blocks, strict=True))
    for name in ("ap", "recall", "n_truths", "n_found", "n_gallery", "rank"):
        assert getattr(result, name) == pytest.approx(getattr(expected, name)), name
    assert 0 < result.mean_ap < 1
