"""Checkpoints: the last two are kept, and a damaged one is passed over with a warning."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from personsearch_core.training.checkpoints import (
    load_newest,
    save_checkpoint,
    set_aside,
)


def _save(directory: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(directory, step, {"weights": torch.full((3,), float(step))})


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "nowhere") is None


def test_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    _save(tmp_path, 5, 10, 15)
    found = load_newest(tmp_path)
    assert found is not None
    assert found.step == 15
    assert torch.equal(found.state["weights"], torch.full((3,), 15.0))
    assert sorted(file.name for file in tmp_path.glob("*.pt")) == ["step-000000010.pt", "step-000000015.pt"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no digest", "digest is no text"])
def test_damaged_one_is_refused_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, 5, 10)
    newest = tmp_path / "step-000000010.pt"
    data = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
    elif damage == "digest is no text":
        newest.with_name(newest.name + ".sha256").write_bytes(b"\xff\xfe\xfd")
    else:
        newest.with_name(newest.name + ".sha256").unlink()
    with caplog.at_level(logging.WARNING):
        found = load_newest(tmp_path)
    assert found is not None
    assert found.step == 5
    assert "step-000000010.pt is refused" in caplog.text


def test_what_is_above_the_step_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _save(tmp_path, 10, 15)
    set_aside(tmp_path, 10)
    assert "step-000000015.pt is now step-000000015.pt.aside" in caplog.text
    _save(tmp_path, 11, 12)
    assert sorted(file.name for file in tmp_path.glob("*.pt")) == ["step-000000011.pt", "step-000000012.pt"]


def test_half_written_one_is_invisible(tmp_path: Path) -> None:
    _save(tmp_path, 5)
    (tmp_path / ".step-000000010.pt.part").write_bytes(b"half")
    (tmp_path / "step-000000010.pt.sha256").write_text("0" * 64)
    found = load_newest(tmp_path)
    assert found is not None
    assert found.step == 5


def test_a_new_folder_of_checkpoints_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: dict[Path, set[str]] = {}
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            flushed[path] = {each.name for each in path.iterdir()}

    monkeypatch.setattr(os, "fsync", watched)
    _save(tmp_path / "checkpoints", 5)
    assert "checkpoints" in flushed[tmp_path]
    assert {"step-000000005.pt", "step-000000005.pt.sha256"} <= flushed[tmp_path / "checkpoints"]
