"""A folder of checkpoints that survives a kill at any instant.

Each checkpoint is two files, `step-<n>.pt` and `step-<n>.pt.sha256`. Both are written under temporary names
and flushed to disk; the digest is renamed first and the data last, so a visible `.pt` is complete. Damage is
detected by the digest, and the previous checkpoint is used. Checkpoints that a run did not resume from are
set aside, so that only its own count among the newest.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

KEPT = 2
ASIDE = ".aside"
"""Suffix of a checkpoint that no run resumes from any more."""


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps: a tree of tensors, numbers, strings, lists and dicts."""

    step: int
    state: dict[str, Any]


def save_checkpoint(directory: Path, step: int, state: Mapping[str, Any], keep: int = KEPT) -> Path:
    """Write the state after `step` steps, delete all but the newest `keep` checkpoints; returns the file."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        _flush_directory(directory.parent)
    final = directory / _name(step)
    temporary = directory / f".{final.name}.part"
    with temporary.open("wb") as file:
        torch.save({"step": step, "state": dict(state)}, file)
        _flush_to_disk(file.fileno())
    _write_digest(final, _sha256(temporary))
    temporary.replace(final)
    _flush_directory(directory)
    for old in _checkpoint_files(directory)[keep:]:
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


def remove_checkpoints(directory: Path) -> None:
    """Delete the folder of checkpoints, once the results are safe on disk."""
    if directory.is_dir():
        shutil.rmtree(directory)


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
    if digest_file.read_bytes().strip() != _sha256(checkpoint).encode():
        return f"its bytes differ from the digest in {digest_file.name}"
    return None


def _write_digest(checkpoint: Path, digest: str) -> None:
    final = _digest_file(checkpoint)
    temporary = final.with_name(f".{final.name}.part")
    with temporary.open("w") as file:
        file.write(digest + "\n")
        file.flush()
        _flush_to_disk(file.fileno())
    temporary.replace(final)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush_to_disk(descriptor: int) -> None:
    os.fsync(descriptor)


def _flush_directory(directory: Path) -> None:
    """Make the renames themselves durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
