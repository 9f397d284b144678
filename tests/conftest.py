"""Fixtures that every room's tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.main import PACKAGES
from flows.run.embedded_api import IDLE_MINUTES
from flows.run.prefect_api import api

PROJECT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: one process works on them, while the other takes everything else, from the end."""
    items.sort(key=lambda item: "tests/end_to_end/" not in item.nodeid)


@pytest.fixture(autouse=True)
def levels_of_loggers() -> Iterator[None]:
    """What a command sets in this process ends with its test."""
    yield
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real samples and oracles beside the project; tests skip where it is absent."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the real samples are not here: no folder {folder.name!r} beside the project")
    return folder


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One embedded Prefect API for the whole session and all its workers; child processes use it, too."""
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as environment:
        home = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
        environment.setenv("PREFECT_HOME", str(home / "prefect"))
        # Also where an earlier test has loaded Prefect, with the settings of then.
        from prefect.settings import PREFECT_HOME, temporary_settings

        environment.delenv("PREFECT_API_URL", raising=False)
        environment.setenv(IDLE_MINUTES, "0")
        with temporary_settings({PREFECT_HOME: home / "prefect"}), api() as found:
            yield found.url
