"""Writes docs/first-minutes.md: what `personsearch demo` prints, on a terminal and without one.

python -m tests.campaigns.first_minutes WORK
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.end_to_end.commands import PROJECT

COLUMNS = 100
MOST_LINES = 40
KINDS = ("terminal", "plain")
PAGE = PROJECT / "docs" / "first-minutes.md"

_TOKEN = re.compile(r"\n|\r|\x1b\[\??[0-9;]*[A-Za-z]|[^\n\r\x1b]+")


@dataclass(frozen=True)
class Transcript:
    """What a command printed, and how long it took."""

    text: str
    seconds: float
    longest_silence: float
    """The longest time, in seconds, in which nothing was printed."""
    is_of_terminal: bool

    def lines(self) -> list[str]:
        """The lines that stay, as a terminal shows them."""
        screen, row, column = [""], 0, 0
        for token in _TOKEN.findall(self.text):
            if token == "\n":
                row += 1
                screen += [""] * (row + 1 - len(screen))
            elif token == "\r":
                column = 0
            elif token == "\x1b[2K":
                screen[row] = ""
            elif token.startswith("\x1b[") and token.endswith("A"):
                row -= int(token[2:-1] or 1)
            elif not token.startswith("\x1b"):
                screen[row] = screen[row][:column].ljust(column) + token + screen[row][column + len(token) :]
                column += len(token)
            if token == "\n" and not self.is_of_terminal:
                column = 0
        return [line.rstrip() for line in screen if line.strip()]

    def live(self, beginning: str) -> list[str]:
        """What a line that begins so showed in turn, where it was drawn again and again."""
        texts = (token.strip() for token in _TOKEN.findall(self.text))
        return list(dict.fromkeys(text for text in texts if text.startswith(beginning)))


def record(words: list[str], *, terminal: bool) -> Transcript:
    """Run a command that must succeed, and read what it prints until it ends."""
    reading, writing = os.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", MOST_LINES, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    started = time.monotonic()
    child = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, cwd=PROJECT, env=environment
    )
    os.close(writing)
    chunks, silence, last = [], 0.0, started
    for chunk in _chunks(reading):
        chunks.append(chunk)
        now = time.monotonic()
        silence, last = max(silence, now - last), now
    os.close(reading)
    if child.wait() != 0:
        raise SystemExit(f"{' '.join(words)} ended with {child.returncode}:\n{b''.join(chunks).decode()}")
    return Transcript(b"".join(chunks).decode(), time.monotonic() - started, silence, terminal)


def _chunks(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except OSError:  # how a terminal says that its other end is closed
            return
        if not chunk:
            return
        yield chunk


def record_demo(work: Path, kind: str) -> None:
    """Run the demo from nothing, and keep its transcript in `work`."""
    folder = work / kind
    shutil.rmtree(folder, ignore_errors=True)
    command = str(PROJECT / ".venv" / "bin" / "personsearch")
    found = record([command, "demo", "--folder", str(folder)], terminal=kind == "terminal")
    (work / f"{kind}.json").write_text(json.dumps(asdict(found)))
    print(f"{kind}: {found.seconds:.0f} s, silent for {found.longest_silence:.1f} s at most")


def write_page(work: Path) -> None:
    """Write the page from the transcripts in `work`."""
    shown = {kind: Transcript(**json.loads((work / f"{kind}.json").read_text())) for kind in KINDS}
    for kind, found in shown.items():
        if len(found.lines()) > MOST_LINES:
            raise SystemExit(f"{kind}: {len(found.lines())} lines, and at most {MOST_LINES} are promised")
    PAGE.write_text(_page(shown, work), encoding="utf-8")


def _as_in_the_project(lines: list[str], folder: Path) -> list[str]:
    """With the default folder, relative to the project, in place of this one."""
    shortened = (line.replace(str(folder), "var/demo") for line in lines)
    return [line.replace(f"{PROJECT}/", "") for line in shortened]


def _page(shown: dict[str, Transcript], work: Path) -> str:
    text = {name: "\n".join(_as_in_the_project(found.lines(), work / name)) for name, found in shown.items()}
    on_terminal, plain = shown["terminal"], shown["plain"]
    live = [line for line in on_terminal.live("detector") if "%" in line]
    middle = live[len(live) // 2]
    return _TEMPLATE.format(
        terminal=text["terminal"],
        terminal_seconds=on_terminal.seconds,
        terminal_silence=on_terminal.longest_silence,
        live=middle,
        plain=text["plain"],
        plain_seconds=plain.seconds,
        plain_silence=plain.longest_silence,
    )


_TEMPLATE = """# What the demo prints

The whole output of `make demo` after it has installed. `python -m tests.campaigns.first_minutes WORK` renews
this page.

## On a terminal

One line at the bottom shows the current stage: how far it is, the time left, and two figures. It is redrawn
four times per second and disappears when the stage is done. These lines stay, on a terminal of 100 columns
({terminal_seconds:.0f} s in all; the longest time without any output was {terminal_silence:.1f} s):

```text
{terminal}
```

The line at the bottom, halfway through the detector's training:

```text
{live}
```

## Without a terminal

In a log file, a stage says after 5 s how far it is, and then every 30 s ({plain_seconds:.0f} s in all; the
longest time without any output was {plain_silence:.1f} s, in which the line before it says what is being done
and how much time is left):

```text
{plain}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for the two runs of the demo")
    parser.add_argument("--only", choices=KINDS, help="record only this one; the other is in the folder")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    for kind in (options.only,) if options.only else KINDS:
        record_demo(work, kind)
    if all((work / f"{kind}.json").exists() for kind in KINDS):
        write_page(work)


if __name__ == "__main__":
    main()
