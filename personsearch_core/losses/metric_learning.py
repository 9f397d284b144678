"""Losses and miners of pytorch-metric-learning as objectives.

The package is an extra, imported only for a recipe that asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from personsearch_core.errors import PersonSearchError, did_you_mean
from personsearch_core.losses.objective import Batch, ReidObjective, Term
from personsearch_core.losses.options import built, check_names, parameters
from personsearch_core.recipes import Objective

PACKAGE = "pytorch_metric_learning"
PARTS = {
    "distance": ("distances", "BaseDistance"),
    "reducer": ("reducers", "BaseReducer"),
    "embedding_regularizer": ("regularizers", "BaseRegularizer"),
    "weight_regularizer": ("regularizers", "BaseRegularizer"),
}
"""Options whose value is a class of the package, as `{name: LpDistance, p: 2}`: its module and base class."""
UNFIT = {
    "BaseMetricLossFunction",
    "GenericPairLoss",
    "ManifoldLoss",
    "VICRegLoss",
    "BaseMiner",
    "BaseDistance",
    "BaseReducer",
    "BaseRegularizer",
    "EmbeddingsAlreadyPackagedAsTriplets",
}
"""Base classes, and what needs batches of another kind: without labels, of two views, of ready triplets."""
NOT_OPTIONS = {"weight_init_func", "mat_based_loss"}
"""Arguments that no config can give: a function, and what a loss passes on to its base class."""


class MetricLearning(ReidObjective):
    """A loss of pytorch-metric-learning on the labelled rows of a batch, or on the tuples that a miner finds.

    Parameters of the loss (classifiers, proxies, margins) are learnt with the branch; statistics that it
    gathers are part of its state. What loss and miner draw at random depends on the seed and on the number of
    the batch alone. On a GPU, the host waits for the tuples that it picks, and for that number.
    """

    batches: Tensor

    def __init__(self, objective: Objective, identities: int, dim: int) -> None:
        super().__init__()
        self.seed = int(torch.randint(2**31, ()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        sizes = {"num_classes": identities, "embedding_size": dim, "descriptors_dim": dim}
        self.loss = _module("losses", "BaseMetricLossFunction", objective.loss, objective.loss_options, sizes)
        self.miner = (
            _module("miners", "BaseMiner", objective.miner, objective.miner_options, {})
            if objective.miner is not None
            else None
        )

    def forward(self, batch: Batch) -> Term:
        embeddings, labels = batch.labelled_embeddings, batch.labelled
        gpus = [embeddings.device] if embeddings.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed(self.seed + int(self.batches))
            mined = None if self.miner is None else self.miner(embeddings, labels)
            loss = self.loss(embeddings, labels, mined)
        if mined is None:
            return Term(loss)
        return Term(loss, {"mined": torch.full((), len(mined[0]), dtype=torch.float32, device=loss.device)})

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        self.batches += 1
        for statistic in self.loss.buffers():
            statistic.detach_()  # else the next backward pass would go through this batch, too


def _module(
    part: str, base: str, name: str | None, options: Mapping[str, Any] | None, sizes: Mapping[str, int]
) -> nn.Module:
    """A loss, miner, distance, reducer or regularizer; `sizes` fill in what it must be told."""
    classes, known = _classes(part, base)
    if name not in known:
        what = {"losses": "loss"}.get(part, part.removesuffix("s"))
        there = f"there are: {', '.join(sorted(known))}"
        if name in classes:
            raise PersonSearchError(
                f"{name} of pytorch-metric-learning does not fit: it is a base class, wraps others, or needs "
                f"another kind of batches; {there}"
            )
        near = did_you_mean(str(name), known)
        raise PersonSearchError(f"pytorch-metric-learning has no {what} {name!r}{near}; {there}")
    named = parameters(known[name])
    filled = {
        size: sizes[size]
        for size in sizes
        if size in named and named[size].default is inspect.Parameter.empty
    }
    options = dict(options or {})
    check_names(options, set(named) - set(filled) - NOT_OPTIONS, name)
    # Its own alone: it may itself give its base class what that needs.
    own = inspect.signature(known[name]).parameters.values()
    needed = [each.name for each in own if each.name in named and each.default is inspect.Parameter.empty]
    missing = [each for each in needed if each not in filled and each not in options]
    if missing:
        raise PersonSearchError(f"{name} needs a value for {' and '.join(missing)} among its options")
    for option in PARTS.keys() & options.keys():
        options[option] = _part(option, options[option])
    module: nn.Module = built(known[name], {**filled, **options}, name)
    _keep_statistics(module)
    return module


def _part(option: str, given: Any) -> nn.Module:
    if not isinstance(given, Mapping) or "name" not in given:
        raise PersonSearchError(f"{option}: write {{name: CLASS, OPTION: VALUE ...}}, not {given!r}")
    return _module(*PARTS[option], given["name"], {key: given[key] for key in given if key != "name"}, {})


def _keep_statistics(module: nn.Module) -> None:
    """Make plain tensors of a module part of its state, so that they are saved, resumed and moved."""
    for name, value in list(vars(module).items()):
        if isinstance(value, Tensor):
            delattr(module, name)
            module.register_buffer(name, value)


def _classes(part: str, base: str) -> tuple[dict[str, type], dict[str, type[nn.Module]]]:
    """The package's classes of a kind, by name: all, and those that can be trained with."""
    try:
        module = import_module(f"{PACKAGE}.{part}")
    except ModuleNotFoundError as error:
        raise PersonSearchError(
            "kind metric_learning needs the package pytorch-metric-learning: install it with "
            "pip install 'personsearch[metric-learning]'"
        ) from error
    classes = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
    root: type[nn.Module] = getattr(module, base)
    fit = {name: value for name, value in classes.items() if issubclass(value, root) and name not in UNFIT}
    return classes, fit
