"""Locks and files on a system without flock, /proc and positioned reads, as far as Linux can play one.

All packages are imported that way; `make elsewhere` also runs the tests of `storage`, but for four that need
Linux.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from flows.errors import StageError
from flows.run import template
from tests.pages import PROJECT


def test_locks_and_files_of_a_store_work_without_what_linux_has() -> None:
    tests = [f"tests/storage/{name}.py" for name in ("test_locks", "test_durable")]
    command = [sys.executable, "-m", "tests.elsewhere", "--all", *tests, "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "modules are imported" in done.stdout


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_a_run_elsewhere_is_refused_with_a_way_out(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template.sys, "platform", system)
    with pytest.raises(StageError, match=f"needs Linux, not {system}: use WSL 2 on Windows"):
        template.require_forks()
