"""What `prefect deploy` checks before it registers a deployment; prefect.yaml names it as a build step."""

from __future__ import annotations

from pathlib import Path

from flows.config.loading import load_config
from flows.errors import ConfigError, failure_of


def require_config(config: str) -> dict[str, str]:
    """Check the config that the deployments run, and return its path.

    Ends the process with one line if it is missing or wrong: of any exception, Prefect prints the traceback.
    """
    try:
        if not config:
            raise ConfigError(
                "set PERSONSEARCH_CONFIG to the config that the deployments run, and deploy again"
            )
        load_config(Path(config))
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise SystemExit(f"error: {failure}") from error
    return {"config": config}
