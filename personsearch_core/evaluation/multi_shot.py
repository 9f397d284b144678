"""Several boxes of one person as one query: the "multiple queries" of Zheng et al., ICCV 2015."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from personsearch_core.evaluation.matching import expand_ranges
from personsearch_core.evaluation.records import ImageLists, Queries


def pool_shots(queries: Queries) -> tuple[Queries, ImageLists]:
    """Give each query the mean of its shots: all queries of its person, itself included.

    The paper takes those of the query's camera alone. Embeddings are normalised before and after. Also
    returns the frames of the shots, to hide from the query's gallery and ground truth.
    """
    group = np.unique(queries.person_ids(), return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 2))
    unit = queries.embeddings / np.linalg.norm(queries.embeddings, axis=1, keepdims=True)
    pooled = np.add.reduceat(unit[order], starts[:-1], axis=0)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)

    counts = np.diff(starts)[group]
    _, position = expand_ranges(starts[group], counts)
    hidden = ImageLists(np.append(0, np.cumsum(counts)), queries.image[order[position]])
    return replace(queries, embeddings=pooled[group].astype(np.float32)), hidden
