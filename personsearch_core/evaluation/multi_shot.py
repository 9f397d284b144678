"""Several boxes of one person as one query: the "multiple queries" of Zheng et al., ICCV 2015."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from personsearch_core.evaluation.matching import expand_ranges
from personsearch_core.evaluation.records import IntArray, Queries
from personsearch_core.evaluation.task import HiddenImages


def pool_shots(queries: Queries, cameras: IntArray | None = None) -> tuple[Queries, HiddenImages]:
    """Give each query the mean of its shots: all queries of its person, itself included.

    With `cameras` (n_images,) only those of its own camera, as in the paper. Embeddings are normalised before
    and after. Also returns the frames of the shots, to hide from the query's gallery and ground truth.
    """
    camera = np.zeros(len(queries), np.int64) if cameras is None else cameras[queries.image]
    labels = np.stack([queries.person_ids(), camera], axis=1)
    group = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 2))
    unit = queries.embeddings / np.linalg.norm(queries.embeddings, axis=1, keepdims=True)
    pooled = np.add.reduceat(unit[order], starts[:-1], axis=0)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)

    counts = np.diff(starts)[group]
    _, position = expand_ranges(starts[group], counts)
    hidden = HiddenImages(np.append(0, np.cumsum(counts)), queries.image[order[position]])
    return replace(queries, embeddings=pooled[group].astype(np.float32)), hidden
