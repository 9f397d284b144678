"""Whether a branch can be trained on the rows that it is given."""

from __future__ import annotations

import torch
from torch import nn

from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import ReidLabels
from personsearch_core.recipes import ReidRecipe
from personsearch_core.training.row_batches import RowReader


def check_inputs(recipe: ReidRecipe, branch: nn.Module, reader: RowReader, labels: ReidLabels) -> None:
    """Raise PersonSearchError, which says what to change, if rows, branch and recipe do not fit."""
    if reader.shape[0] == 0 or not labels.names:
        raise PersonSearchError(
            f"there is nothing to train on: the store has {reader.shape[0]} rows of {len(labels.names)} "
            "identities; check its dataset and split"
        )
    if len(labels) != reader.shape[0]:
        raise PersonSearchError(
            f"the index has {len(labels)} rows, the features have {reader.shape[0]}: not the same store"
        )
    first = next((part for part in branch.modules() if isinstance(part, nn.Conv2d)), None)
    if first is not None and tuple(reader.shape[1:2]) != (first.in_channels,):
        raise PersonSearchError(
            f"the store holds rows of {tuple(reader.shape[1:])}, but the branch takes maps of "
            f"{first.in_channels} channels: the features are for another variant or backbone; "
            "build features for this one"
        )
    if recipe.held_out_identities == 0 and (recipe.keep == "best" or recipe.early_stopping is not None):
        raise PersonSearchError(
            "keep: best and early_stopping need held_out_identities above 0 to measure mAP on"
        )


def check_group(recipe: ReidRecipe, branch: nn.Module, device: torch.device, processes: int) -> None:
    """Raise PersonSearchError if this many processes cannot share a batch."""
    if processes > recipe.identities_per_batch * recipe.shots:
        raise PersonSearchError(
            f"{processes} devices cannot share a batch of {recipe.identities_per_batch} identities with "
            f"{recipe.shots} rows each: use fewer devices"
        )
    if processes > 1 and device.type == "cpu" and has_batch_norm(branch):
        raise PersonSearchError(
            "branch.norm: batch cannot be synchronised between processes on a CPU: use group, frozen_batch "
            "or devices: 1"
        )


def has_batch_norm(branch: nn.Module) -> bool:
    """Whether the branch has norms whose statistics are those of the batch."""
    return any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in branch.modules())
