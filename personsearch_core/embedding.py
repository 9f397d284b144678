"""Embeddings of cached rows: the branch alone, without images or a detector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from personsearch_core.models.branch import Branch
from personsearch_core.models.compute import arrange, autocast, model_device, prepare
from personsearch_core.recipes import GalleryRecipe
from personsearch_core.training.row_batches import RowReader, open_batches


def embed_rows(
    branch: Branch,
    reader: RowReader,
    recipe: GalleryRecipe,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Embeddings (N, D) float32 of all rows, in order; compare people by dot product.

    Rows are read ahead in batches of `recipe.batch_rows`; memory holds a few of them at most.
    """
    branch = prepare(branch.eval(), recipe.compute, any_batch=True)
    device = model_device(branch)
    total = reader.shape[0]
    starts = range(0, total, recipe.batch_rows)
    batches = open_batches(reader, recipe.batch_rows, device, memory_budget=0)
    wanted = (np.arange(start, min(start + recipe.batch_rows, total)) for start in starts)
    embedded = np.empty((total, branch.branch.embedding_dim), np.float32)
    with torch.inference_mode():
        for start, batch in zip(starts, batches(wanted), strict=True):
            with autocast(recipe.compute, device):
                embeddings = branch.embed(arrange(batch, recipe.compute))
            embedded[start : start + len(batch)] = embeddings.float().cpu().numpy()
            progress(start + len(batch), total)
    return embedded
