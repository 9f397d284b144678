"""Files that appear whole: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from storage.folders import flush


def partial_name(stem: str) -> str:
    return f"{stem}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.partial"


def remove_abandoned(directory: Path) -> None:
    """Remove the unfinished files of processes of this host that are gone."""
    for file in directory.glob(f"*.{socket.gethostname()}.*.partial"):
        process = file.name.split(".")[-3]
        if not Path("/proc", process).exists():
            file.unlink(missing_ok=True)


def replace_text(file: Path, text: str) -> None:
    partial = file.with_name(partial_name(file.name))
    partial.write_text(text)
    partial.replace(file)


def flush_or_remove(file: Path) -> None:
    """Flush a file to the disk; one that did not get there is gone.

    The kernel tells once that a page could not be written: asked again, it would say that all is well.
    """
    try:
        flush(file)
    except OSError:
        file.unlink(missing_ok=True)
        raise
