"""Search among held-out people from cached features: no images, no detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.ranking import count_at_least
from personsearch_core.identities import IntArray, ReidLabels

_NO_QUERIES = (
    "no held-out person is in two images, so there is nothing to search for: raise held_out_identities or "
    "set it to 0"
)


def check_validation(labels: ReidLabels, rows: IntArray) -> None:
    """Raise if `validate` would have no query: no held-out person of a dataset is in two images."""
    for source, own in _by_source(labels, rows):
        in_images = np.unique(np.stack([labels.label[own], labels.image[own]], axis=1), axis=0)
        if len(in_images) == len(np.unique(labels.label[own])):
            raise PersonSearchError(f"{source}: {_NO_QUERIES}" if source else _NO_QUERIES)


def validate(
    embed: Callable[[IntArray], npt.NDArray[np.float32]], labels: ReidLabels, rows: IntArray
) -> dict[str, float]:
    """mAP and rank-1 of searching the held-out people, by `validation/<metric>`.

    Of several datasets each is searched on its own, as tests are, and also has
    `validation/<dataset>/<metric>`; `validation/<metric>` is the mean of these, so that a dataset counts the
    same whatever its size.
    """
    found = {
        source: held_out_search(embed(own), labels.label[own], labels.image[own])
        for source, own in _by_source(labels, rows)
    }
    means = {name: float(np.mean([each[name] for each in found.values()])) for name in ("mAP", "rank1")}
    metrics = {f"validation/{name}": value for name, value in means.items()}
    for source, each in found.items() if len(found) > 1 else ():
        metrics |= {f"validation/{source}/{name}": value for name, value in each.items()}
    return metrics


def _by_source(labels: ReidLabels, rows: IntArray) -> Iterator[tuple[str, IntArray]]:
    """Each dataset's name and its part of the rows."""
    for number, source in enumerate(labels.sources):
        yield source, rows[labels.source[rows] == number]


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
