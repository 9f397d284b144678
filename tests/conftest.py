"""Fixtures that every room's tests share."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.main import PACKAGES
from flows.run.embedded_api import IDLE_MINUTES
from flows.run.prefect_api import api
from flows.run.prefect_defaults import be_quiet
from storage.locks import exclusive
from tests.memory import folder_in_memory
from tests.prefect_database import NAME, copy_database, make_database

PROJECT = Path(__file__).resolve().parents[1]
ROOM = 4 << 30
"""Bytes that all folders of tests have room in, with those of two earlier runs that failed."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled modules for the hundreds of interpreters to come, unless nothing is to be kept.

    Folders of tests lie in memory where it has room, unless --basetemp or PYTEST_DEBUG_TEMPROOT name a place.
    """
    if config.pluginmanager.hasplugin("cacheprovider"):
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode = False
    if in_memory := folder_in_memory(ROOM):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", in_memory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: one process works on them, while the other takes everything else, from the end."""
    items.sort(key=lambda item: "tests/end_to_end/" not in item.nodeid)


def pytest_collectstart() -> None:
    """Imports make millions of objects that stay: nothing is to be looked for among them."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What was imported for all tests stays, so that no collection of garbage looks through it again."""
    gc.freeze()
    gc.enable()


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session that all its workers share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(autouse=True)
def levels_of_loggers() -> Iterator[None]:
    """What a command sets in this process ends with its test."""
    yield
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder on a disk, in place of `tmp_path`: in memory, files are read in another way."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real samples and oracles beside the project; tests skip where it is absent."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the real samples are not here: no folder {folder.name!r} beside the project")
    return folder


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database for new home folders, made once for all workers of the session: copy it."""
    home = shared_folder(tmp_path_factory) / "prefect_database"
    with exclusive(home.with_suffix(".lock"), what="Prefect's database"):
        if not home.exists():
            make_database(home)
    return home / NAME


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[str]:
    """One embedded Prefect API for the whole session and all its workers; child processes use it, too."""
    home = shared_folder(tmp_path_factory) / "prefect"
    with exclusive(home.with_suffix(".lock"), what="the home folder of the suite's API"):
        if not home.exists():
            copy_database(prefect_database, home)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_HOME", str(home))
        be_quiet()  # as a run: another API serves other settings
        # Also where an earlier test has loaded Prefect, with the settings of then.
        from prefect.settings import PREFECT_HOME, temporary_settings

        environment.delenv("PREFECT_API_URL", raising=False)
        environment.setenv(IDLE_MINUTES, "0")
        with temporary_settings({PREFECT_HOME: home}), api() as found:
            yield found.url
