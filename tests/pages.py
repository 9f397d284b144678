"""The code blocks of the documentation, and a shell to run them in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^ {4}\S.*\n(?: {4}.*\n)*)", re.MULTILINE)
_COMMENT = re.compile(r"\s+#\s.*$")
_INLINE = re.compile(r"`([a-z]+ [^`\n]*)`")


@dataclass(frozen=True)
class Block:
    """The text of a fenced or an indented block."""

    text: str

    def replaced(self, values: Mapping[str, str]) -> Block:
        """With a reader's own values in place of the page's; each must be there."""
        text = self.text
        for old, new in values.items():
            assert old in text, f"{old!r} is not in the block:\n{self.text}"
            text = text.replace(old, new)
        return Block(text)

    def commands(self) -> list[str]:
        """One command per line, without comments; continued lines are joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [
            command for line in lines if (command := _COMMENT.sub("", line).strip("$ ")) and command[0] != "#"
        ]


@dataclass(frozen=True)
class Page:
    """A page of the documentation, or a section of one."""

    text: str

    @classmethod
    def of(cls, name: str) -> Page:
        folder = PROJECT if name == "README.md" else PROJECT / "docs"
        return cls((folder / name).read_text())

    def section(self, heading: str) -> Page:
        found = re.search(
            rf"^(#+) {re.escape(heading)}$(.*?)(?=^\1 |\Z)", self.text, re.DOTALL | re.MULTILINE
        )
        assert found, f"no section {heading!r}"
        return Page(found[2])

    def blocks(self) -> Iterator[Block]:
        """Blocks of shell commands and of plain text; blocks in other languages are left out."""
        for language, text in _BLOCK.findall(self.text):
            if language in ("", "bash", "sh"):
                yield Block(text)
        for text in _INDENTED.findall(_BLOCK.sub("", self.text)):
            yield Block(textwrap.dedent(text))

    def commands(self, program: str) -> list[str]:
        """The commands of a program, in blocks and between backticks, in the page's order and each once."""
        found = []
        for line in self.text.replace("\\\n", " ").splitlines():
            whole = _COMMENT.sub("", line).strip("$ ")
            texts = [whole] if whole.startswith(f"{program} ") else _INLINE.findall(line)
            found += [text for text in texts if text.startswith(f"{program} ")]
        return list(dict.fromkeys(" ".join(text.split()) for text in found))

    def block_with(self, words: str) -> Block:
        (found,) = [block for block in self.blocks() if words in block.text]
        return found


class Shell:
    """Bash in the project's folder, with the project's environment activated."""

    def __init__(self, **variables: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        self.environment = inherited | {"PATH": path} | variables

    def run(self, block: Block, *, timeout: float = 180) -> str:
        """Run the commands of a block, each of which must succeed, and return what they print."""
        # With `exit`, bash stays the parent of the last command, which may ask for its parent.
        script = block.text.replace("source .venv/bin/activate", ":") + "\nexit"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=self.environment,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{block.text}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout
