"""The training loop: steps, checkpoints, the metric log, and a clean way to stop.

A trainer passes a function of the step number and the objects whose state carries over between steps. Batches
and all randomness are functions of (seed, step), so the state and the step number determine a run: on a CPU,
the weights after a kill and a resume equal those of an uninterrupted run, byte for byte.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from personsearch_core.errors import PersonSearchError
from personsearch_core.training.checkpoints import load_newest, save_checkpoint, set_aside
from personsearch_core.training.group import Alone
from personsearch_core.training.metrics_log import FILE_NAME, MetricLog

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
PARALLEL = "parallel"
"""Folder of jobs and messages for the processes of a data-parallel training."""
RESUME_ONLY = (CHECKPOINTS, PARALLEL, FILE_NAME)
"""Files that a training keeps for a resume, besides its results."""

Metrics = Mapping[str, Tensor | float]


class Stateful(Protocol):
    """Part of a checkpoint: modules, optimisers, gradient scalers, watchers."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class Progress(Protocol):
    """Called from time to time with the steps done and the latest metrics."""

    def __call__(self, done: int, total: int, **metrics: float) -> None: ...


class TrainingStopped(Exception):
    """The run was asked to stop; the same call resumes from its checkpoint."""


class NonFiniteError(PersonSearchError):
    """The loss, or another metric that must be finite, is NaN or infinite."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished training; what it wrote is in its folder."""

    steps: int
    kept_steps: int
    """Steps after which the kept weights were reached."""
    metrics: dict[str, float]
    """Last values of the history, and the kept weights' validation if people were held out."""


@dataclass(frozen=True)
class LoopSettings:
    """How a run is logged and checkpointed; nothing here changes its result."""

    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 60.0
    flush_steps: int | None = None
    """Steps between reads of the metrics; each read waits for an accelerator. Default: chosen by the
    training's device, see `on`; the bare loop reads every step."""
    tensorboard_steps: int = 10
    progress_seconds: float = 1.0

    def on(self, device: torch.device, accelerator_steps: int) -> LoopSettings:
        """With `flush_steps` filled in: every step on a CPU, else every `accelerator_steps`."""
        if self.flush_steps is not None:
            return self
        return replace(self, flush_steps=1 if device.type == "cpu" else accelerator_steps)


def ignore_progress(done: int, total: int, **metrics: float) -> None:
    """The default `progress`: does nothing."""


def never_stop() -> bool:
    """The default `should_stop`: never."""
    return False


def run_loop(
    step: Callable[[int], Metrics],
    *,
    total_steps: int,
    state: Mapping[str, Stateful],
    work_dir: Path,
    describe_batch: Callable[[int], str],
    after_step: Callable[[int], Mapping[str, float]] | None = None,
    watch: Callable[[int, Mapping[str, float]], None] | None = None,
    is_finished: Callable[[], bool] = never_stop,
    must_be_finite: tuple[str, ...] = ("loss",),
    group: Alone | None = None,
    settings: LoopSettings | None = None,
    progress: Progress = ignore_progress,
    should_stop: Callable[[], bool] = never_stop,
) -> int:
    """Call `step(0) ... step(total_steps - 1)`, resuming from the newest intact checkpoint in `work_dir`.

    step
        does one optimiser step and returns its metrics, including `loss`; tensors are read later, to keep an
        accelerator busy.
    state
        everything that carries over between steps, by name.
    describe_batch
        names the content of a step's batch (image ids, row numbers), for messages about a bad loss.
    after_step
        is called with the number of steps done, after each one; the metrics that it returns (a validation)
        join the step's row in the log.
    watch
        is called once per finite row, in order, and may raise; its state, if any, belongs in `state`.
    is_finished
        ends the run early, asked before each step.
    must_be_finite
        metrics whose NaN or infinity ends the run; add the gradient norm unless a gradient scaler is used,
        because a finite loss with a bad gradient spoils the weights too.
    group
        the processes of a data-parallel training: rank 0 alone logs, and reads and writes checkpoints.

    Returns the number of steps done. Raises `TrainingStopped`, after a checkpoint, when `should_stop()` is
    true, and `NonFiniteError` if a metric is not finite; checkpoints hold only states whose metrics were
    read. The last state is checkpointed too: the same call on a finished run returns at once. What is in
    `RESUME_ONLY` may go once the run's results are safe.
    """
    settings, group = settings or LoopSettings(), group or Alone()
    flush_steps = settings.flush_steps or 1
    checkpoints = work_dir / CHECKPOINTS
    with ExitStack() as stack:
        log = None
        if group.rank == 0:
            log = stack.enter_context(closing(MetricLog(work_dir, settings.tensorboard_steps)))
            state = {**state, "metric_log": log}
        done = _resume(checkpoints, state, group)
        if log is not None:
            log.start(done)
        rows = _PendingRows(log, describe_batch, watch, must_be_finite)
        kept = done

        def checkpoint() -> None:
            nonlocal kept
            rows.flush()
            if log is not None and kept != done:
                set_aside(checkpoints, kept)
                save_checkpoint(checkpoints, done, {name: part.state_dict() for name, part in state.items()})
            kept = done

        saved_at = reported_at = time.monotonic()
        while done < total_steps and not is_finished():
            if should_stop():
                checkpoint()
                raise TrainingStopped(
                    f"stopped as requested after {done} of {total_steps} steps; the same call resumes"
                )
            metrics = step(done)
            done += 1
            extra = after_step(done) if after_step is not None else {}
            rows.add(done - 1, metrics, extra)
            if extra or done % flush_steps == 0:
                rows.flush()
            now = time.monotonic()
            if now - reported_at >= settings.progress_seconds:
                progress(done, total_steps, **rows.latest)
                reported_at = now
            due = settings.checkpoint_steps is not None and done % settings.checkpoint_steps == 0
            if due or now - saved_at >= settings.checkpoint_seconds:
                checkpoint()
                saved_at = time.monotonic()
        checkpoint()
        progress(done, total_steps, **rows.latest)
    return done


def _resume(checkpoints: Path, state: Mapping[str, Stateful], group: Alone) -> int:
    """Load the newest checkpoint that fits, in all processes; the number of steps done."""
    step, found = group.of_first(_fitting(checkpoints, state) if group.rank == 0 else (0, {}))
    for name in found.keys() & state.keys():  # rank 0 alone has a metric log
        state[name].load_state_dict(found[name])
    if step:
        logger.info("resuming after step %d from %s", step, checkpoints)
    return step


def _fitting(checkpoints: Path, state: Mapping[str, Stateful]) -> tuple[int, dict[str, Any]]:
    """Step and state of the newest checkpoint; 0 and nothing without one."""
    found = load_newest(checkpoints)
    if found is None:
        return 0, {}
    if set(found.state) != set(state):
        raise PersonSearchError(
            f"the checkpoint in {checkpoints} holds {sorted(found.state)}, this run needs {sorted(state)}: "
            "it belongs to a different kind of training; choose another work folder"
        )
    if not MetricLog.covers(checkpoints.parent, found.state["metric_log"]):
        logger.warning("the log beside %s has lost rows: the training starts over", checkpoints)
        return 0, {}
    return found.step, found.state


class _PendingRows:
    """Rows whose metrics may still be on an accelerator."""

    def __init__(
        self,
        log: MetricLog | None,
        describe_batch: Callable[[int], str],
        watch: Callable[[int, Mapping[str, float]], None] | None,
        must_be_finite: tuple[str, ...],
    ) -> None:
        self._log = log
        self._describe_batch = describe_batch
        self._watch = watch
        self._must_be_finite = must_be_finite
        self._pending: list[tuple[int, Metrics, Mapping[str, float]]] = []
        self.latest: dict[str, float] = {}

    def add(self, step: int, metrics: Metrics, extra: Mapping[str, float]) -> None:
        self._pending.append((step, metrics, extra))

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        for (step, _, extra), measured in zip(pending, _read([row[1] for row in pending]), strict=True):
            for name in self._must_be_finite:
                if not math.isfinite(measured[name]):
                    raise NonFiniteError(
                        f"{name} is {measured[name]} at step {step}; the batch holds "
                        f"{self._describe_batch(step)}. Try a lower rate, gradient clipping, or fp32."
                    )
            row = {**measured, **extra}
            if self._log is not None:
                self._log.append(step, row, force_tensorboard=bool(extra))
            self.latest = row
            if self._watch is not None:
                self._watch(step, row)


def _read(rows: list[Metrics]) -> list[dict[str, float]]:
    """Metrics as Python floats; all tensors of a device are fetched in one transfer."""
    tensors: dict[torch.device, list[Tensor]] = defaultdict(list)
    for row in rows:
        for value in row.values():
            if isinstance(value, Tensor):
                tensors[value.device].append(value.detach().float())
    fetched = {device: iter(torch.stack(of_device).tolist()) for device, of_device in tensors.items()}
    return [
        {
            name: next(fetched[value.device]) if isinstance(value, Tensor) else float(value)
            for name, value in row.items()
        }
        for row in rows
    ]
