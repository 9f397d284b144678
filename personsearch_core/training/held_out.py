"""Search among held-out people from cached features: no images, no detector."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.ranking import count_at_least
from personsearch_core.identities import IntArray

_NO_QUERIES = (
    "no held-out person is in two images, so there is nothing to search for: raise held_out_identities or "
    "set it to 0"
)


def check_held_out(label: IntArray, image: IntArray) -> None:
    """Raise if `held_out_search` would have no query: no label (n,) is in two images (n,)."""
    in_images = np.unique(np.stack([label, image], axis=1), axis=0)
    if len(in_images) == len(np.unique(label)):
        raise PersonSearchError(_NO_QUERIES)


def held_out_search(
    embeddings: npt.NDArray[np.float32], label: IntArray, image: IntArray
) -> dict[str, float]:
    """mAP and rank-1 of searching each of n rows among the rows of other images.

    embeddings (n, D), compared by dot product; label and image (n,). Step AP with grouped ties; rows whose
    person is in no other image are not queries. Raises PersonSearchError if no query is left.
    """
    average_precisions, firsts = [], []
    for query in range(len(embeddings)):
        gallery = image != image[query]
        positive = (label == label[query])[gallery]
        if not positive.any():
            continue
        similarities = embeddings[gallery] @ embeddings[query]
        of_positives = similarities[positive]
        at_least = count_at_least(similarities, of_positives)
        positives_at_least = count_at_least(of_positives, of_positives)
        average_precisions.append((positives_at_least / at_least).mean())
        firsts.append(of_positives.max() > similarities[~positive].max(initial=-np.inf))
    if not firsts:
        raise PersonSearchError(_NO_QUERIES)
    return {"mAP": float(np.mean(average_precisions)), "rank1": float(np.mean(firsts))}
