"""Names of stages: the kind alone where a config has one of it, `kind:dataset` where it has several."""

from __future__ import annotations

from typing import Literal

from flows.config.models import Config, EvaluationSection

Kind = Literal["ingest", "detector", "features", "reid", "detections", "gallery", "evaluation", "report"]
"""What stages are called that make the same from other datasets; in the order in which they are made."""


def ingest_name(dataset: str) -> str:
    return f"ingest:{dataset}"


def test_names(config: Config) -> dict[str, EvaluationSection]:
    """What tells the stages of each test apart: '' for the only one, ':dataset' for several."""
    if len(config.evaluation) == 1:
        return {"": config.evaluation[0]}
    return {f":{entry.test.dataset}": entry for entry in config.evaluation}
