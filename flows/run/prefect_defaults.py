"""Prefect's defaults for unattended, offline use. They are set before Prefect is imported."""

from __future__ import annotations

import os

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,storage,data_catalog,personsearch_core",
}


def be_quiet() -> None:
    """Set the defaults in the environment, where the user has not chosen otherwise."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
