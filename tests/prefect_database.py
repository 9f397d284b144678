"""Prefect's database as it is in a new home folder: to bring one up to date takes ten seconds."""

from __future__ import annotations

import contextlib
import os
import runpy
import sqlite3
import sys
from pathlib import Path

from tests.forking import finish

NAME = "prefect.db"


def make_database(home: Path) -> None:
    """As `prefect server database upgrade` makes it."""
    home.mkdir()
    finish(_upgrade, home)


def copy_database(database: Path, home: Path) -> None:
    """Give a new home folder the database of another."""
    home.mkdir()
    with (
        contextlib.closing(sqlite3.connect(database)) as source,
        contextlib.closing(sqlite3.connect(home / NAME)) as target,
    ):
        source.backup(target)


def _upgrade(home: Path) -> None:
    os.environ["PREFECT_HOME"] = str(home)
    sys.argv = ["prefect", "server", "database", "upgrade", "-y"]
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        runpy.run_module("prefect", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
