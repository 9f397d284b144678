"""A folder of checkpoints that survives a kill at any instant.

Each checkpoint is two files, `step-<n>.pt` and `step-<n>.pt.sha256`. Both are written under temporary names
and flushed to disk; the digest is renamed first and the data last, so a visible `.pt` is complete. Damage is
detected by the digest, and the previous checkpoint is used. Checkpoints that a run did not resume from are
set aside, so that only its own count among the newest.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from personsearch_core.checksums import file_digest

logger = logging.getLogger(__name__)

KEPT = 2
ASIDE = ".aside"
"""Suffix of a checkpoint that no run resumes from any more."""


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps: a tree of tensors, numbers, strings, lists and dicts."""

    step: int
    state: dict[str, Any]


def save_checkpoint(directory: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` steps, delete all but the newest `KEPT` checkpoints; returns the file."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        _flush_directory(directory.parent)
    final = directory / _name(step)
    data = _flushed(final, lambda file: torch.save({"step": step, "state": dict(state)}, file))
    digest = _flushed(_digest_file(final), lambda file: file.write(f"{file_digest(data)}\n".encode()))
    digest.replace(_digest_file(final))
    data.replace(final)
    _flush_directory(directory)
    for old in _checkpoint_files(directory)[KEPT:]:
        old.unlink()
        _digest_file(old).unlink(missing_ok=True)
    return final


def load_newest(directory: Path) -> Checkpoint | None:
    """The newest intact checkpoint (tensors on the CPU), or None.

    A damaged one is reported in a warning and stays in place (see `set_aside`); the previous one is tried.
    Only tensors and plain containers are unpickled.
    """
    for file in _checkpoint_files(directory):
        damage = _damage(file)
        if damage is not None:
            logger.warning("checkpoint %s is refused: %s; trying the previous one", file, damage)
            continue
        saved = torch.load(file, map_location="cpu", weights_only=True)
        return Checkpoint(step=saved["step"], state=saved["state"])
    return None


def set_aside(directory: Path, step: int) -> None:
    """Rename all checkpoints of more than `step` steps, so that a run that resumes there keeps its own.

    Otherwise they would stay the newest, and the run's checkpoints would be deleted at once.
    """
    for file in _checkpoint_files(directory):
        if file.name > _name(step):
            aside = file.with_name(file.name + ASIDE)
            file.replace(aside)
            _digest_file(file).unlink(missing_ok=True)
            logger.warning("the run resumed after step %d: checkpoint %s is now %s", step, file, aside.name)


def _name(step: int) -> str:
    return f"step-{step:09d}.pt"


def _checkpoint_files(directory: Path) -> list[Path]:
    """Visible checkpoints, newest first."""
    return sorted(directory.glob("step-*.pt"), reverse=True)


def _digest_file(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".sha256")


def _damage(checkpoint: Path) -> str | None:
    digest_file = _digest_file(checkpoint)
    if not digest_file.is_file():
        return f"its digest {digest_file.name} is missing"
    # As bytes: a damaged digest need not be text.
    if digest_file.read_bytes().strip() != file_digest(checkpoint).encode():
        return f"its bytes differ from the digest in {digest_file.name}"
    return None


def _flushed(final: Path, write: Callable[[BinaryIO], object]) -> Path:
    """What is to become `final`, on the disk beside it under a temporary name."""
    temporary = final.with_name(f".{final.name}.part")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _flush_directory(directory: Path) -> None:
    """Make the renames themselves durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
