"""What a run is asked for: the parameters of the command line, of deployments and of sweeps alike."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from flows.stages.base import Kind


class RunRequest(BaseModel):
    """A config, changes to it, and which stages; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    config: Path = Field(json_schema_extra={"minLength": 1})
    """Prefect refuses a deployment whose config is empty, such as of a variable that is not set."""
    overrides: tuple[str, ...] = ()
    """Changes to the config, `reid.lr=3e-4`."""
    store: str | None = None
    force: tuple[str, ...] = ()
    start_from: str | None = None
    until: str | None = None
    only: tuple[Kind, ...] = ()
    """Kinds of stages that may be made; a run that needs another ends with its name. By default all may."""
    verify: bool = False
    """Whether every byte of images and artifacts is read before it is used, whatever its size and time."""
    study: Path | None = None
    """Record of the study that asks, in the folder that is its store: a machine without it has another."""
