"""Fixtures of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.tiny import draw_tiny_scenes, write_tiny_config


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes in PRW's layout, shared by all tests: copy them before changing anything."""
    root = tmp_path_factory.mktemp("tiny") / "prw"
    draw_tiny_scenes(root)
    return root


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_scenes: Path) -> Path:
    """A config of the whole method with an empty store of its own beside it."""
    return write_tiny_config(tmp_path, tiny_scenes)
