"""Step two of the method: train the branch, and nothing else, from cached features of the shared layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personsearch_core.amounts import Amount
from personsearch_core.identities import IntArray, ReidLabels, hold_out_identities
from personsearch_core.models.compute import autocast
from personsearch_core.models.states import save_weights
from personsearch_core.recipes import ReidRecipe
from personsearch_core.sampling import PKSampler
from personsearch_core.schedules import rate_factor
from personsearch_core.training.group import Alone
from personsearch_core.training.held_out import check_validation, validate
from personsearch_core.training.loop import (
    LoopSettings,
    Metrics,
    Progress,
    TrainingResult,
    ignore_progress,
    never_stop,
    run_loop,
)
from personsearch_core.training.memory import advice_when_out_of_memory
from personsearch_core.training.metrics_log import finish_history
from personsearch_core.training.optimisation import build_optimiser, gradient_scaler, set_rate, take_step
from personsearch_core.training.phases import Phases
from personsearch_core.training.reid_inputs import check_group, check_inputs
from personsearch_core.training.reid_losses import ReidLosses, StepLosses
from personsearch_core.training.row_batches import RowBatches, RowReader, open_batches
from personsearch_core.training.watching import (
    BestWeights,
    CollapseWatch,
    embedding_statistics,
    positions_by_source,
)

MEMORY_BUDGET = 4 * 2**30
"""Default number of bytes up to which all rows are held in a host's memory."""
PART_OF_GPU = 0.5
"""Likewise, as a fraction of a GPU's free memory: the rest is for the branch and its activations."""
FLUSH_STEPS = 10
"""Steps between reads of the metrics on an accelerator."""


@dataclass(frozen=True)
class ReidResult(TrainingResult):
    """Of a branch, whose folder has `branch.safetensors`, `branch.json` and `history.parquet`."""

    training_identities: int
    identities_per_epoch: dict[str, int]
    """Of each dataset, if there are several."""
    held_out_identities: int
    left_out: tuple[str, ...]
    """Identities with a single row, which have no positive pair."""


def train_reid(
    recipe: ReidRecipe,
    branch: nn.Module,
    reader: RowReader,
    labels: ReidLabels,
    work_dir: Path,
    *,
    amounts: Sequence[Amount] | None = None,
    device: torch.device | str = "cpu",
    memory_budget: int | None = None,
    threads: int | None = None,
    group: Alone | None = None,
    settings: LoopSettings | None = None,
    progress: Progress = ignore_progress,
    should_stop: Callable[[], bool] = never_stop,
) -> ReidResult:
    """Train a branch, in place, on the rows of a feature store.

    Writes `branch.safetensors`, `branch.json`, `history.parquet` and TensorBoard's `logs/`. Equal recipes,
    weights and rows give equal bytes on one type of machine, however often the run is interrupted. What a
    resume needs (`RESUME_ONLY`) stays, so that a finished training ends at once.

    Parameters
    ----------
    recipe
        Objectives, batches, optimiser and phases.
    branch
        Pooled maps or crops (B, *row) -> embeddings (B, `recipe.branch.embedding_dim`), not normalised.
    reader
        The rows (N, *row), of several datasets one after the other.
    labels
        Who is on each row, and of which dataset; unlabelled rows are drawn only as `unlabelled_per_batch`.
    work_dir
        Checkpoints and results; an interrupted run goes on from there.
    amounts
        How many identities of each dataset an epoch takes; by default each identity once.
    device
        Where to train.
    memory_budget
        A store of up to this many bytes is held in the device's memory (by default MEMORY_BUDGET, or
        PART_OF_GPU of a GPU's free memory); a larger one is read ahead.
    threads
        Number of threads that read ahead; by default one, or one per batch read ahead for a GPU.
    group
        The processes that share every batch, of which this is one; by default it is alone. Losses are those
        of the whole batch, and gradients equal those of one process. Rank 0 writes the results.
    settings, progress, should_stop
        Checkpointing and logging; called with progress; asked before each step whether to stop.

    Returns
    -------
    ReidResult

    Raises
    ------
    PersonSearchError
        Before the first step, if the inputs cannot be trained on.
    CollapseError
        If all embeddings become the same point.
    NonFiniteError
        If the loss is not finite.
    TrainingStopped
        If `should_stop()` was true.
    """
    device, group = torch.device(device), group or Alone()
    check_inputs(recipe, branch, reader, labels)
    check_group(recipe, branch, device, group.count)
    split = hold_out_identities(labels, recipe.held_out_identities, recipe.seed)
    if split.held_out.size:
        check_validation(labels, split.held_out)
    people, shots, unlabelled = recipe.identities_per_batch, recipe.shots, recipe.unlabelled_per_batch
    sampler = PKSampler(labels, split.training, people, shots, unlabelled, recipe.seed, amounts)
    with ExitStack() as stack:
        stack.enter_context(advice_when_out_of_memory(_memory_advice(recipe)))
        budget = _memory_budget(device) if memory_budget is None else memory_budget
        if device.type == "cpu":
            budget //= group.count  # one memory for all
        batches = open_batches(
            reader, people * shots + unlabelled, device, memory_budget=budget, threads=threads
        )
        training = ReidTraining(recipe, branch, batches, sampler, labels, split.held_out, device, group)
        stack.enter_context(closing(training))
        steps = run_loop(
            training.step,
            total_steps=training.phases.planned,
            state=training.state,
            work_dir=work_dir,
            describe_batch=training.describe_batch,
            after_step=training.validate_when_due,
            watch=training.collapse,
            is_finished=lambda: training.phases.finished,
            must_be_finite=("loss",) if training.scaler.is_enabled() else ("loss", "gradient_norm"),
            group=group,
            settings=(settings or LoopSettings()).on(device, FLUSH_STEPS),
            progress=progress,
            should_stop=should_stop,
        )
    if recipe.keep == "best":
        branch.load_state_dict(training.best.weights)
    metrics = finish_history(work_dir) if group.rank == 0 else {}
    if split.held_out.size:
        metrics["validation/best_mAP"] = training.best.score
    per_epoch = dict(zip(labels.sources, sampler.per_epoch, strict=True))
    result = ReidResult(
        steps=steps,
        kept_steps=training.best.steps if recipe.keep == "best" else steps,
        metrics=metrics,
        training_identities=len(sampler.names),
        identities_per_epoch=per_epoch if len(labels.sources) > 1 else {},
        held_out_identities=len(np.unique(labels.label[split.held_out])),
        left_out=tuple(sampler.left_out),
    )
    if group.rank == 0:
        _write_results(recipe, branch, result, work_dir)
    return result


def _memory_budget(device: torch.device) -> int:
    if device.type != "cuda":
        return MEMORY_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    return int(PART_OF_GPU * free)


def _memory_advice(recipe: ReidRecipe) -> str:
    return (
        f"lower identities_per_batch ({recipe.identities_per_batch}), shots ({recipe.shots}) or "
        f"unlabelled_per_batch ({recipe.unlabelled_per_batch}), use compute.precision: bf16, or lower "
        "run.memory_budget_gib, so that rows are read as needed instead of held in memory"
    )


class ReidTraining:
    """The state of one training, and one step of it; `train_reid` runs it in the loop."""

    def __init__(
        self,
        recipe: ReidRecipe,
        branch: nn.Module,
        batches: RowBatches,
        sampler: PKSampler,
        labels: ReidLabels,
        held_out: IntArray,
        device: torch.device,
        group: Alone | None = None,
    ) -> None:
        self.group = group or Alone()
        self.recipe = recipe
        self.device = device
        self.sampler = sampler
        self.labels = labels
        self.held_out = held_out
        self.batches = batches
        ends = accumulate(phase.epochs * sampler.steps_per_epoch for phase in recipe.phases)
        self.phases = Phases(list(ends))
        memory_format = torch.channels_last if recipe.compute.channels_last else torch.contiguous_format
        self.branch = branch.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        losses = ReidLosses(recipe, self.branch, len(sampler.names), device, self.group)
        self.objective, self.objectives = losses.objective, losses.objectives
        learnt = any(True for _ in self.objectives.parameters())
        self.losses = self.group.wrap(losses, all_used=not learnt)
        self.optimiser = build_optimiser(
            recipe.optimiser,
            [*self.branch.parameters(), *self.objectives.parameters()],
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            fused=recipe.fused_optimiser,
        )
        self.scaler = gradient_scaler(recipe.compute, device)
        self.collapse = CollapseWatch(recipe.phases)
        self.best = BestWeights()
        self.state = {
            "branch": self.branch,
            "objectives": self.objectives,
            "optimiser": self.optimiser,
            "scaler": self.scaler,
            "phases": self.phases,
            "collapse": self.collapse,
            "best": self.best,
        }
        self._open = ExitStack()
        self._features: Iterator[Tensor] | None = None

    def step(self, step: int) -> Metrics:
        """One optimiser step on the batch of that number."""
        recipe = self.recipe
        rows = self.sampler.batch(step)
        features = self._next_features(step)
        phase = self.phases.at(step)
        rate = recipe.lr * self._rate_factor(step)
        set_rate(self.optimiser, rate)
        self.branch.train()
        labels = self.sampler.label_of_row[rows]
        losses: StepLosses = self.losses(features, labels, phase, self._positions(rows))
        norm = take_step(losses.loss, self.optimiser, self.scaler, recipe.gradient_clip)
        self.objective(phase).update(losses.batch)
        return {
            "loss": losses.loss.detach(),
            **losses.watched,
            **embedding_statistics(losses.batch),
            "gradient_norm": norm,
            "rate": rate,
            "phase": phase,
        }

    def _rate_factor(self, step: int) -> float:
        """The schedule's factor; a phase with a schedule of its own also starts with fresh moments."""
        schedule = self.recipe.schedule
        if schedule.span == "run":
            return rate_factor(schedule, self.phases.position(step), self.phases.planned)
        position, length = self.phases.within(step)
        if position == 0:
            self.optimiser.state.clear()
        return rate_factor(schedule, position, length)

    def validate_when_due(self, done: int) -> dict[str, float]:
        """Search among the held-out people every few epochs, and at the end.

        If mAP has not risen for `early_stopping` validations of a phase, the phase ends; the steps it skips
        count as done in the schedule of the rate.
        """
        self.phases.advance(done)
        every = self.recipe.validate_every_epochs * self.sampler.steps_per_epoch
        measured = {}
        if len(self.held_out) and (done % every == 0 or self.phases.finished):
            measured = validate(self._embed, self.labels, self.held_out)
            self.best.offer(measured["validation/mAP"], done, self.branch.state_dict())
            if self.recipe.early_stopping is not None and self.best.since >= self.recipe.early_stopping:
                self.phases.end_now()
        if self.phases.at_an_end:
            self.best.since = 0
        return measured

    def describe_batch(self, step: int) -> str:
        rows = self.sampler.batch(step)
        return f"rows {rows.tolist()} of the feature store"

    def close(self) -> None:
        """Stop reading ahead."""
        self._open.close()

    def _next_features(self, step: int) -> Tensor:
        """Those of the batch of that number, which follows the one before, or is the first of all."""
        if self._features is None:
            steps = range(step, self.phases.planned)
            opened = self.batches(self.sampler.batch(each)[self.group.part] for each in steps)
            self._features = self._open.enter_context(closing(opened))  # type: ignore[type-var]
        return self._on_device(next(self._features))

    def _positions(self, rows: IntArray) -> dict[str, IntArray]:
        source, label = self.labels.source[rows], self.sampler.label_of_row[rows]
        return positions_by_source(source, label, self.labels.sources)

    def _on_device(self, features: Tensor) -> Tensor:
        """Maps as float32 in the recipe's memory format; crops stay uint8."""
        if features.dtype != torch.uint8:
            features = features.float()
        if self.recipe.compute.channels_last and features.ndim == 4:
            features = features.contiguous(memory_format=torch.channels_last)
        return features

    @torch.no_grad()
    def _embed(self, rows: IntArray) -> np.ndarray:
        """Embeddings (n, D) for ranking, in evaluation mode; each process embeds its share."""
        self.branch.eval()
        own = rows[self.group.part]
        parts = np.split(own, range(self._batch_rows, len(own), self._batch_rows))
        embeddings = []
        for features in self.batches(parts):
            with autocast(self.recipe.compute, self.device):
                embeddings.append(self.branch(self._on_device(features)).float())
        found = torch.cat(embeddings)
        if self.recipe.branch.normalise:
            found = F.normalize(found, dim=1)
        shares = self.group.gather([found.cpu().numpy()])
        joined = np.empty((len(rows), found.shape[1]), np.float32)
        for rank, share in enumerate(shares):
            joined[rank :: self.group.count] = share
        return joined

    @property
    def _batch_rows(self) -> int:
        return self.recipe.identities_per_batch * self.recipe.shots


def _write_results(recipe: ReidRecipe, branch: nn.Module, result: ReidResult, work_dir: Path) -> None:
    save_weights(work_dir / "branch.safetensors", branch.state_dict())
    description = {
        "recipe": recipe.model_dump(mode="json"),
        "steps": result.steps,
        "kept_steps": result.kept_steps,
        "training_identities": result.training_identities,
        "identities_per_epoch": result.identities_per_epoch,
        "held_out_identities": result.held_out_identities,
        "left_out": list(result.left_out),
        "metrics": result.metrics,
    }
    (work_dir / "branch.json").write_text(json.dumps(description, indent=2) + "\n")
