"""The command line in this process: quicker than one of its own where many commands are run."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

import pytest

from flows.cli import main
from flows.run.template import KEEP_FREED_MEMORY


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and what it wrote to standard error and output."""

    status: int
    error: str
    output: str

    @property
    def message(self) -> str:
        """What it wrote to standard error, on one line: boxes and line breaks are the terminal's."""
        return " ".join(re.sub(r"[╭╮╰╯─│]", " ", self.error).split())


class InProcess:
    """Runs command lines in the current folder, as they are typed after `personsearch`."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, line: str) -> Ended:
        self._capfd.readouterr()
        status = call_main(line)
        said = self._capfd.readouterr()
        return Ended(status, said.err, said.out)


def call_main(line: str) -> int:
    """The exit status. Variables may stand before the command, as in a shell: `NAME=VALUE plan demo.yaml`."""
    words = shlex.split(line)
    with pytest.MonkeyPatch.context() as patch:
        while re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            patch.setenv(name, value)
        patch.setattr("sys.argv", ["personsearch", *words])
        try:
            main.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> InProcess:
    """With no variables of personsearch set."""
    for name in [name for name in os.environ if name.startswith("PERSONSEARCH_")]:
        monkeypatch.delenv(name)
    for name, value in KEEP_FREED_MEMORY.items():  # else `benchmark` would replace this process
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    return InProcess(capfd)
