"""Search among held-out people against scikit-learn's average precision."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import ReidLabels
from personsearch_core.training.held_out import check_validation, held_out_search


@pytest.mark.parametrize("seed", range(3))
def test_is_step_average_precision(seed: int) -> None:
    generator = np.random.default_rng(seed)
    identity, image = generator.integers(0, 6, 40), generator.integers(0, 25, 40)
    embeddings = generator.integers(-3, 4, size=(40, 3)).astype(np.float32)
    expected, firsts = [], []
    for query in range(40):
        gallery = image != image[query]
        positive = (identity == identity[query])[gallery]
        if positive.any():
            similarity = (embeddings @ embeddings[query])[gallery]
            expected.append(average_precision_score(positive, similarity))
            firsts.append(similarity[positive].max() > similarity[~positive].max())
    found = held_out_search(embeddings, identity, image)
    assert found["mAP"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["rank1"] == pytest.approx(np.mean(firsts))


def test_no_person_is_in_two_images() -> None:
    with pytest.raises(PersonSearchError, match="no held-out person is in two images"):
        held_out_search(np.ones((4, 2), np.float32), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))
    with pytest.raises(PersonSearchError, match="no held-out person is in two images"):
        check_validation(ReidLabels.from_columns([*"aabb"], [*"1122"]), np.arange(4))
    check_validation(ReidLabels.from_columns([*"aabb"], [*"1123"]), np.arange(4))
