"""A folder that is filled appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.durable import partial_name
from storage.folders import whole_folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fill(target: Path, content: str) -> None:
    with whole_folder(target) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "note").write_text(content)


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    _fill(target, "old")
    (target / "of the old one").touch()
    with pytest.raises(KeyError), whole_folder(target) as partial:
        (partial / "half").touch()
        raise KeyError
    assert _names(target) == ["deep", "of the old one"]
    _fill(target, "new")
    assert (target / "deep" / "note").read_text() == "new" and _names(target) == ["deep"]
    assert _names(tmp_path) == ["out"]


def test_an_interruption_between_the_renames_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "out", Path.rename
    _fill(target, "old")
    calls: list[Path] = []

    def interrupted(path: Path, to: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _fill(target, "new")
    assert (target / "deep" / "note").read_text() == "old" and _names(tmp_path) == ["out"]


def test_behind_a_link_the_folder_itself_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "real")
    _fill(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and _names(tmp_path / "elsewhere") == ["real"]
    assert (tmp_path / "elsewhere" / "real" / "deep" / "note").read_text() == "new"


def test_what_a_killed_process_left_of_the_same_folder_is_deleted(tmp_path: Path) -> None:
    names = [partial_name(name).replace(f".{os.getpid()}.", ".4194305.") for name in ("out", "other")]
    for name in (*names, partial_name("out")):
        (tmp_path / name).mkdir()
    mine = set(_names(tmp_path)) - {names[0]}
    _fill(tmp_path / "out", "new")
    assert set(_names(tmp_path)) == mine | {"out"}
