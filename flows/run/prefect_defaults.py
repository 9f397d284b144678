"""What is set before Prefect is imported: defaults for unattended, offline use, and a quicker import."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",  # looking for them reads the metadata of every package
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,storage,data_catalog,personsearch_core",
}
"""Also set in the environment of members that run on a work pool."""


def be_quiet() -> None:
    """Set the defaults in the environment, where the user has not chosen otherwise."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Import without looking for garbage, which takes a fifth of Prefect's time; what is imported stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
