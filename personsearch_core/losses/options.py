"""Options of objectives that other packages define: checked by signature, and tried on a small batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from personsearch_core.errors import PersonSearchError, did_you_mean
from personsearch_core.losses.objective import Batch, ReidObjective

TRIAL_IDENTITIES, TRIAL_DIM, TRIAL_SHOTS = 4, 8, 4


def parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Named parameters of a class or function; those of base classes too, as far as `**kwargs` reach them."""
    if not inspect.isclass(kind):
        return dict(inspect.signature(kind).parameters)
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        named = (each for each in own if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD))
        found = {each.name: each for each in named} | found
        if not any(each.kind == each.VAR_KEYWORD for each in own):
            break
    return found


def check_names(options: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Raise PersonSearchError for an option that the owner does not have."""
    known = sorted(known)
    for name in options:
        if name not in known:
            raise PersonSearchError(
                f"{owner} has no option {name!r}{did_you_mean(name, known)}; it has: "
                f"{', '.join(known) or 'none'}"
            )


def built(kind: Callable[..., Any], arguments: Mapping[str, Any], owner: str) -> Any:
    """`kind(**arguments)`; PersonSearchError, with the reason, if it refuses them."""
    try:
        return kind(**arguments)
    except Exception as error:  # another package's code may raise anything
        raise PersonSearchError(f"{owner} cannot be built: {type(error).__name__}: {error}") from error


def try_out(build: Callable[[int, int], ReidObjective], owner: str) -> None:
    """Take a step with an objective, for what would otherwise fail once the detector is trained.

    Raises PersonSearchError, which says why.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = build(TRIAL_IDENTITIES, TRIAL_DIM)
        labels = torch.arange(TRIAL_IDENTITIES).repeat_interleave(TRIAL_SHOTS)
        batch = Batch(torch.randn(len(labels), TRIAL_DIM, requires_grad=True), labels)
        try:
            loss = objective(batch).loss
            if isinstance(loss, Tensor) and loss.shape == ():
                loss.backward()
            objective.update(batch.detached())
        except Exception as error:  # another package's code may raise anything
            raise PersonSearchError(
                f"{owner} cannot be computed with these options: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(loss, Tensor) or loss.shape != ():
        raise PersonSearchError(f"{owner} gives no single number with these options, so it cannot be trained")
    gradient = batch.embeddings.grad
    if loss.isnan() or (gradient is not None and gradient.isnan().any()):
        raise PersonSearchError(f"{owner} gives nan with these options, so it cannot be trained")
