"""What one process of a detector's training does: all of it, or its share of every batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from personsearch_core.data.loader import Rate, TrainingBatch, batch_numbers, training_batches
from personsearch_core.data.network_input import require_decoder
from personsearch_core.data.prefetch import brought
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.data.scenes import Scene
from personsearch_core.models.compute import arrange, autocast, prepare
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.models.states import save_weights
from personsearch_core.models.weights import load_initial_weights, save_branch, save_detector
from personsearch_core.recipes import DetectorRecipe, JointRecipe
from personsearch_core.schedules import rate_factor
from personsearch_core.training.group import Alone
from personsearch_core.training.joint import (
    BRANCH_WEIGHTS,
    UNTRAINED_BRANCH_WEIGHTS,
    JointBranch,
    ReidLoss,
)
from personsearch_core.training.loop import (
    LoopSettings,
    Metrics,
    NonFiniteError,
    Progress,
    Stateful,
    TrainingResult,
    ignore_progress,
    never_stop,
    run_loop,
)
from personsearch_core.training.memory import advice_when_out_of_memory
from personsearch_core.training.metrics_log import finish_history
from personsearch_core.training.optimisation import (
    apply_gradients,
    build_optimiser,
    gradient_scaler,
    set_rate,
)
from personsearch_core.training.rates import StepRate
from personsearch_core.training.validation import validate_detector
from personsearch_core.training.watching import BestWeights

FLUSH_STEPS = 20
"""Steps between reads of the metrics on an accelerator."""
LOADER_RATE, STEP_RATE = "loader_images_per_second", "step_images_per_second"
"""Of the rates that come with progress; the history leaves them out, because they are the machine's."""


@dataclass(frozen=True)
class DetectorResult(TrainingResult):
    """Of a detector, whose folder has `detector.safetensors` and `detector.json`."""

    images_per_epoch: dict[str, int]


def train_share(
    recipe: DetectorRecipe,
    entries: Sequence[TrainingSet],
    validation: Sequence[Scene],
    work_dir: Path,
    *,
    device: torch.device,
    group: Alone | None = None,
    joint: JointRecipe | None = None,
    settings: LoopSettings | None = None,
    progress: Progress = ignore_progress,
    should_stop: Callable[[], bool] = never_stop,
) -> DetectorResult:
    """What each process of `train_detector` does; together they take every batch once."""
    group = group or Alone()
    require_decoder(recipe.model, device)
    stream = TrainingStream(entries, recipe.seed)
    with ExitStack() as stack:
        stack.enter_context(advice_when_out_of_memory(_memory_advice(recipe)))
        training = stack.enter_context(closing(_Training(recipe, stream, validation, device, group, joint)))
        if training.joint is not None:
            work_dir.mkdir(parents=True, exist_ok=True)
            save_branch(work_dir / UNTRAINED_BRANCH_WEIGHTS, training.joint.branch)
        try:
            steps = run_loop(
                training.step,
                total_steps=training.total_steps,
                state=training.state,
                work_dir=work_dir,
                describe_batch=training.describe_batch,
                after_step=training.validate_when_due,
                must_be_finite=("loss",) if training.scaler.is_enabled() else ("loss", "gradient_norm"),
                group=group,
                settings=(settings or LoopSettings()).on(device, FLUSH_STEPS),
                progress=lambda done, total, **metrics: progress(
                    done, total, **metrics, **training.rates(done)
                ),
                should_stop=should_stop,
            )
        except NonFiniteError as error:
            (work_dir / "non_finite_batch.txt").write_text(f"{error}\n")
            raise
    images = dict(zip(stream.names, stream.counts, strict=True))
    if group.rank != 0:
        return DetectorResult(steps, steps, {}, images)
    return _write_results(training, steps, images, work_dir)


def total_steps(recipe: DetectorRecipe, epoch_size: int) -> int:
    """Number of optimiser steps: the recipe's `steps`, or its epochs over `epoch_size` images, rounded up."""
    return recipe.training.steps or math.ceil(recipe.training.epochs * epoch_size / _images_per_step(recipe))


def _images_per_step(recipe: DetectorRecipe) -> int:
    return recipe.training.batch_size * recipe.training.accumulate


def _memory_advice(recipe: DetectorRecipe) -> str:
    training = recipe.training
    return (
        f"lower training.batch_size ({training.batch_size}) and raise training.accumulate "
        f"({training.accumulate}) by the same factor, which keeps the images per step; or use "
        f"compute.precision: bf16, or a smaller model.image_width and image_height"
    )


class _Losses(nn.Module):
    """The losses as one forward pass, for data-parallel wrapping."""

    def __init__(self, detector: Detector, joint: JointBranch | None) -> None:
        super().__init__()
        self.detector = detector
        self.joint = joint

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, Tensor, ReidLoss | None]:
        """Classification and regression, each (B,), and the re-ID loss of a joint training."""
        variant = None if self.joint is None else self.joint.recipe.roi.variant
        classification, regression, shared = self.detector.losses(batch.images, batch.targets, variant)
        if self.joint is None or shared is None:
            return classification, regression, None
        return classification, regression, self.joint(shared, batch.scenes)


class _Training:
    """The state of one training, and one step of it."""

    def __init__(
        self,
        recipe: DetectorRecipe,
        stream: TrainingStream,
        validation: Sequence[Scene],
        device: torch.device,
        group: Alone,
        joint: JointRecipe | None = None,
    ) -> None:
        self.recipe = recipe
        self.stream = stream
        self.validation = validation
        self.device = device
        self.group = group
        self.total_steps = total_steps(recipe, stream.epoch_size)
        training, alone = recipe.training, group.count == 1
        # A CUDA graph's gradients cannot be added up or exchanged.
        replayable = alone and training.accumulate == 1 and joint is None
        self.detector = prepare(
            _initial_detector(recipe).to(device).train(),
            recipe.compute,
            unbroken=alone or recipe.model.norm != "batch",
            cuda_graphs=("candidates_graph", *(("losses_graph",) if replayable else ())),
        )
        self.joint: JointBranch | None = None
        if joint is not None:
            identities = len(stream.identities)
            self.joint = JointBranch(joint, self.detector, identities, recipe.compute, recipe.seed).to(device)
        self.losses = group.wrap(_Losses(self.detector, self.joint))
        self.optimiser = build_optimiser(
            training.optimiser,
            self.losses.parameters(),
            lr=training.lr,
            weight_decay=training.weight_decay,
            momentum=training.momentum,
            fused=device.type == "cuda",
        )
        self.scaler = gradient_scaler(recipe.compute, device)
        self.best = BestWeights()
        self.state: dict[str, Stateful] = {
            "detector": self.detector,
            "optimiser": self.optimiser,
            "scaler": self.scaler,
            "best": self.best,
        }
        if self.joint is not None:
            self.state["joint"] = self.joint
        self._batches: Generator[TrainingBatch, None, None] | None = None
        self._loader, self._steps = Rate(), StepRate()

    def rates(self, done: int) -> dict[str, float]:
        """Images per second up to step `done`: what the loader could bring, and what the training takes while
        it has a batch; of all processes, whose shares are alike. The lower one limits."""
        steps = self._steps.per_second(done)
        if steps is None:
            return {}
        images = steps * _images_per_step(self.recipe)
        return {LOADER_RATE: self.group.count * self._loader.per_second, STEP_RATE: images}

    def step(self, step: int) -> Metrics:
        """One optimiser step on `accumulate` batches."""
        recipe = self.recipe
        self._steps.begin(step)
        rate = recipe.training.lr * rate_factor(recipe.training.schedule, step, self.total_steps)
        set_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros(3, len(self.stream.entries), device=self.device)
        watched: dict[str, Tensor] = {}
        for _ in range(recipe.training.accumulate):
            of_batch, of_people = self._backward(self._next_batch(step))
            sums += of_batch
            for name, value in of_people.items():
                mean = value / recipe.training.accumulate
                watched[name] = watched[name] + mean if name in watched else mean
        norm = apply_gradients(self.optimiser, self.scaler, recipe.training.gradient_clip)
        metrics = {**self._metrics(self.group.sum(sums)), **watched}
        if self.joint is not None:
            metrics["loss"] = metrics["loss"] + self.joint.recipe.weight * metrics["reid"]
        return {**metrics, "gradient_norm": norm, "rate": rate}

    def validate_when_due(self, done: int) -> dict[str, float]:
        """AP after every few epochs, and at the end."""
        epochs = self.recipe.training.validate_every_epochs
        every = math.ceil(epochs * self.stream.epoch_size / _images_per_step(self.recipe))
        if not self.validation or (done % every and done != self.total_steps):
            return {}
        with self._steps.apart():
            measured = validate_detector(self.detector, self.validation, self.recipe.compute, self.group)
        self.best.offer(measured["validation/coco_ap"], done, self.detector.state_dict())
        return measured

    def describe_batch(self, step: int) -> str:
        first, accumulate = step * self.recipe.training.accumulate, self.recipe.training.accumulate
        numbers = [n for batch in range(first, first + accumulate) for n in batch_numbers(self.recipe, batch)]
        return "images " + ", ".join(self.stream[number][1].image_id for number in numbers)

    def close(self) -> None:
        """Stop reading ahead."""
        if self._batches is not None:
            self._batches.close()

    def _next_batch(self, step: int) -> TrainingBatch:
        if self._batches is None:
            accumulate = self.recipe.training.accumulate
            loaded = training_batches(
                self.stream,
                self.recipe,
                step * accumulate,
                self.total_steps * accumulate,
                self.group.part,
                device=self.device,
                rate=self._loader,
            )
            self._batches = brought(
                loaded,
                self._on_device,
                self.device,
                took=lambda batch, seconds: self._loader.add_arrival(len(batch.entries), seconds),
            )
        with self._steps.apart():
            return next(self._batches)

    def _on_device(self, batch: TrainingBatch) -> TrainingBatch:
        batch = batch.to(self.device)
        return replace(batch, images=arrange(batch.images, self.recipe.compute))

    def _backward(self, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the batch's gradients; returns (3, entries): sums of images, classification and regression, and
        what a joint training's re-ID loss measures.

        The loss is a mean over the images of the whole step. Shares of processes may be unequal, and wrapping
        averages gradients over processes; hence the weight.
        """
        with autocast(self.recipe.compute, self.device):
            classification, regression, reid = self.losses(batch)
        weight = self.group.count / _images_per_step(self.recipe)
        loss = (classification.sum() + regression.sum()) * weight
        watched: dict[str, Tensor] = {}
        if self.joint is not None:
            watched["reid"] = torch.zeros((), device=self.device)
            if reid is not None:
                loss = loss + self.joint.recipe.weight * reid.term.loss / self.recipe.training.accumulate
                watched |= {"reid": reid.term.loss.detach(), **reid.term.watched}
        self.scaler.scale(loss).backward()
        if self.joint is not None and reid is not None:
            self.joint.objective.update(reid.people)
        rows = torch.stack([torch.ones_like(classification), classification, regression]).detach()
        sums = torch.zeros(3, len(self.stream.entries), device=self.device)
        return sums.index_add(1, batch.entries, rows), watched

    def _metrics(self, sums: Tensor) -> dict[str, Tensor]:
        """Losses of the step's images, and of each entry's (NaN, which is not logged, if it has none)."""
        images, classification, regression = sums
        total = images.sum()
        metrics = {
            "loss": (classification.sum() + regression.sum()) / total,
            "classification": classification.sum() / total,
            "regression": regression.sum() / total,
        }
        if len(images) > 1:
            for index, name in enumerate(self.stream.names):
                metrics[f"images/{name}"] = images[index]
                metrics[f"loss/{name}"] = (classification[index] + regression[index]) / images[index]
        return metrics


def _initial_detector(recipe: DetectorRecipe) -> Detector:
    """Random weights from the recipe's seed, then its initial weights; torch's generator is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        detector = build_detector(recipe.model, recipe.loss)
    if recipe.model.initial_weights is not None:
        load_initial_weights(detector, recipe.model.initial_weights)
    return detector


def _write_results(training: _Training, steps: int, images: dict[str, int], work_dir: Path) -> DetectorResult:
    keep, best = training.recipe.training.keep, training.best
    if best.weights:
        other = best.weights if keep == "last" else training.detector.state_dict()
        save_weights(work_dir / f"detector_{'best' if keep == 'last' else 'last'}.safetensors", other)
    if keep == "best":
        training.detector.load_state_dict(best.weights)
    save_detector(work_dir, training.detector)
    if training.joint is not None:
        save_branch(work_dir / BRANCH_WEIGHTS, training.joint.branch)
    kept = best.steps if keep == "best" else steps
    return DetectorResult(steps, kept, finish_history(work_dir), images)
