"""Step one of the method: train the detector on its own, on as many datasets as you have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from personsearch_core.data.sampling import TrainingSet, hold_out_scenes
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.recipes import DetectorRecipe, JointRecipe
from personsearch_core.training.detector_process import DetectorResult, train_share
from personsearch_core.training.distributed import train_in_parallel
from personsearch_core.training.loop import LoopSettings, Progress, ignore_progress, never_stop
from personsearch_core.training.machines import Machines


def train_detector(
    recipe: DetectorRecipe,
    entries: Sequence[TrainingSet],
    validation: Sequence[Scene],
    work_dir: Path,
    *,
    device: torch.device | str | None = None,
    devices: int = 1,
    machines: Machines | None = None,
    joint: JointRecipe | None = None,
    settings: LoopSettings | None = None,
    progress: Progress = ignore_progress,
    should_stop: Callable[[], bool] = never_stop,
) -> DetectorResult:
    """Train a detector; resumes from the newest intact checkpoint in `work_dir`.

    Writes `detector.safetensors`, `detector.json`, `history.parquet` and TensorBoard's `logs/`; with
    validation scenes also `detector_best.safetensors` or `detector_last.safetensors`, whichever the recipe
    does not keep. Equal recipes and scenes give equal bytes on one type of CPU, however often the run is
    interrupted. What a resume needs (`RESUME_ONLY`) stays, so that a finished training ends at once.

    Parameters
    ----------
    recipe
        Model, loss, augmentation and training.
    entries
        The scenes, and how often they come up per epoch.
    validation
        Scenes on which AP is measured every few epochs and at the end, besides those that `training.held_out`
        takes from the entries; may be empty.
    work_dir
        Checkpoints and results.
    device
        By default the first GPU, or the CPU if there is no GPU.
    devices
        More than one: data-parallel processes, launched by torchrun, that share every batch; on GPUs, counted
        from `device`.
    machines
        Several machines: this one waits until they are all there, and each trains in `devices` processes.
        Only this one reads and writes `work_dir`.
    joint
        Also train a branch in the same steps, on the identities of entries that have `identities`; writes
        `branch.safetensors` and, as it was before, `branch_untrained.safetensors`.
    settings, progress, should_stop
        Checkpointing and logging; called with progress; asked before each step whether to stop.

    Returns
    -------
    DetectorResult

    Raises
    ------
    PersonSearchError
        Before the first step, if the inputs cannot be trained on, or other machines do not come; later, if
        one is lost.
    NonFiniteError
        If the loss is not finite; the batch's image ids are also written to `non_finite_batch.txt`.
    TrainingStopped
        If `should_stop()` was true.
    """
    entries, held_out = hold_out_scenes(entries, recipe.training.held_out, recipe.seed)
    validation = [*validation, *held_out]
    _check_inputs(recipe, validation, devices * (1 if machines is None else machines.count), joint)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if devices == 1 and machines is None:
        return train_share(
            recipe,
            entries,
            validation,
            work_dir,
            device=chosen,
            joint=joint,
            settings=settings,
            progress=progress,
            should_stop=should_stop,
        )
    return train_in_parallel(
        recipe,
        entries,
        validation,
        work_dir,
        device=chosen,
        devices=devices,
        machines=machines,
        settings=settings,
        progress=progress,
        should_stop=should_stop,
    )


def _check_inputs(
    recipe: DetectorRecipe, validation: Sequence[Scene], devices: int, joint: JointRecipe | None
) -> None:
    if joint is not None and devices > 1:
        raise PersonSearchError(
            f"joint training computes on one device, not {devices}: each would have a memory of its own"
        )
    if joint is not None and recipe.training.keep == "best":
        raise PersonSearchError(
            "training.keep: best goes by detection alone: use keep: last with joint training"
        )
    if recipe.training.keep == "best" and not validation:
        raise PersonSearchError(
            "training.keep: best needs validation scenes to measure AP on: name validation views, or set "
            "training.held_out"
        )
    if devices > recipe.training.batch_size:
        raise PersonSearchError(
            f"{devices} devices cannot share a batch of {recipe.training.batch_size} images: raise "
            "training.batch_size or use fewer devices"
        )
