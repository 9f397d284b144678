"""Learning-rate schedules as plain functions of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from personsearch_core.recipes import Schedule


def linear_cosine_decay(
    step: int, total_steps: int, *, num_periods: float = 0.5, alpha: float = 0.0, beta: float = 0.001
) -> float:
    """Linear-cosine decay as a factor on the base rate.

    Bello et al. 2017, "Neural Optimizer Search with Reinforcement Learning", as in TensorFlow: with
    t = min(step, T), `(alpha + (T - t) / T) * 0.5 * (1 + cos(2 * pi * num_periods * t / T)) + beta`.

    Parameters
    ----------
    step, total_steps
        Steps done, and T.
    num_periods
        Periods of the cosine.
    alpha, beta
        Added to the linear part, and to the product.

    Returns
    -------
    float

    Examples
    --------
    >>> [round(linear_cosine_decay(step, 100), 3) for step in (0, 50, 100)]
    [1.001, 0.251, 0.001]
    """
    t = min(step, total_steps)
    linear = (total_steps - t) / total_steps
    cosine = 0.5 * (1.0 + math.cos(2.0 * math.pi * num_periods * t / total_steps))
    return (alpha + linear) * cosine + beta


def rate_factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """Factor on the base rate at a step.

    Warm-up multiplies the decayed rate by a factor that rises linearly from `warmup_factor` to 1 over
    `warmup_steps` steps; the decay itself counts from step 0.

    Parameters
    ----------
    schedule
        The recipe.
    step
        0-based.
    total_steps
        Steps of the whole training.

    Returns
    -------
    float

    Examples
    --------
    >>> rate_factor(Schedule(kind="constant", warmup_steps=10, warmup_factor=0.0), step=5, total_steps=100)
    0.5
    """
    if schedule.kind == "constant":
        decay = 1.0
    else:
        decay = linear_cosine_decay(
            step, total_steps, num_periods=schedule.num_periods, alpha=schedule.alpha, beta=schedule.beta
        )
    if step >= schedule.warmup_steps:
        return decay
    progress = step / schedule.warmup_steps
    return decay * (schedule.warmup_factor + (1.0 - schedule.warmup_factor) * progress)
