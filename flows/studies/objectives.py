"""The re-ID objectives that the literature compares, as an axis of a grid over one store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data_catalog.suggestions import did_you_mean
from flows.config.models import Config
from flows.errors import ConfigError
from flows.studies.grid import Axis

_SEMI_HARD, _BATCH_HARD = {"kind": "semi_hard_triplet"}, {"kind": "batch_hard_triplet"}
_CENTER = {"kind": "center", "weight": 0.01}
"""Weight of the center loss: it pulls, and does not collapse what softmax spreads."""

PRESETS: dict[str, list[list[dict[str, Any]]]] = {
    "semi-hard, batch-hard": [[_SEMI_HARD], [_BATCH_HARD]],
    "semi-hard": [[_SEMI_HARD]],
    "batch-hard": [[_BATCH_HARD]],
    "identity softmax": [[{"kind": "identity_softmax"}]],
    "softmax + center": [[{"kind": "identity_softmax"}, _CENTER]],
    "OIM": [[{"kind": "oim"}]],
    "IEL": [[{"kind": "iel"}]],
    "IOIM + center": [[{"kind": "ioim"}, _CENTER]],
    "HEP softmax": [[{"kind": "hep_softmax"}]],
    "OLP + HEP": [[{"kind": "olp"}, {"kind": "hep_softmax"}]],
}
"""Objectives per phase, by name: first the paper's own, then those of the systems it compares with."""


OBJECTIVE = "reid.objective"
"""The axis of a study's grid that is not a config field: it stands for `reid.phases`."""


def objective_axis(config: Config, objectives: Mapping[str, Any], name: str = OBJECTIVE) -> Axis:
    """Objectives by their labels, trained for the same total number of epochs as the config's own phases.

    Each is the name of a preset, an objective, a list of those that are summed, or a list of such lists, one
    per phase. Raises ConfigError for anything else.
    """
    epochs = sum(phase.epochs for phase in config.reid_section.phases)
    overrides: dict[str, tuple[str, ...]] = {}
    for label, given in objectives.items():
        preset = _phases(given)
        part = -(-epochs // len(preset))
        phases = [{"epochs": part, "objectives": terms} for terms in preset]
        overrides[label] = (f"reid.phases={json.dumps(phases)}",)
    return Axis(name, tuple(overrides), overrides)


def _phases(given: Any) -> list[list[dict[str, Any]]]:
    if isinstance(given, str):
        if given not in PRESETS:
            hint = did_you_mean(given, PRESETS)
            raise ConfigError(f"there is no preset {given!r}{hint}; there are {', '.join(PRESETS)}")
        return PRESETS[given]
    terms = [given] if isinstance(given, dict) else given
    phases = terms if isinstance(terms, list) and terms and isinstance(terms[0], list) else [terms]
    for phase in phases:
        if not isinstance(phase, list) or not phase or not all(isinstance(term, dict) for term in phase):
            raise ConfigError(
                f"{given!r} is not an objective: give the name of a preset ({', '.join(PRESETS)}), or "
                "{kind: ...}, as in reid.phases[].objectives"
            )
    return phases


def shared_overrides(config: Config) -> tuple[str, ...]:
    """Overrides that let one store serve all members: unlabelled people, and some in each batch."""
    unlabelled = config.reid_section.unlabelled_per_batch or config.reid_section.identities_per_batch
    return ("features.boxes=all", f"reid.unlabelled_per_batch={unlabelled}")
