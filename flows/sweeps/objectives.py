"""The re-ID objectives that the literature compares, as an axis of a sweep over one store."""

from __future__ import annotations

import json
from typing import Any

from flows.config.models import Config
from flows.sweeps.grid import Axis

_SEMI_HARD, _BATCH_HARD = {"kind": "semi_hard_triplet"}, {"kind": "batch_hard_triplet"}
_CENTER = {"kind": "center", "weight": 0.01}
"""The weight of center loss: large enough to pull, small enough not to collapse what softmax spreads."""

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
"""Objectives by name, phase by phase: the paper's own first, then those of the systems it compares with."""


def objective_axis(config: Config) -> Axis:
    """Every preset, trained for as many epochs in all as the config's own phases."""
    epochs = sum(phase.epochs for phase in config.reid_section.phases)
    overrides: dict[str, tuple[str, ...]] = {}
    for name, preset in PRESETS.items():
        part = -(-epochs // len(preset))
        phases = [{"epochs": part, "objectives": objectives} for objectives in preset]
        overrides[name] = (f"reid.phases={json.dumps(phases)}",)
    return Axis("objective", tuple(PRESETS), overrides)


def shared_overrides(config: Config) -> tuple[str, ...]:
    """What all members need so that one store serves them: unlabelled people, and some in each batch."""
    unlabelled = config.reid_section.unlabelled_per_batch or config.reid_section.identities_per_batch
    return ("features.boxes=all", f"reid.unlabelled_per_batch={unlabelled}")
