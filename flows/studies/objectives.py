"""The re-ID objectives that the literature compares, as a sweep axis over one store."""

from __future__ import annotations

import json
from typing import Any

from flows.config.models import Config
from flows.studies.grid import Axis

_SEMI_HARD, _BATCH_HARD = {"kind": "semi_hard_triplet"}, {"kind": "batch_hard_triplet"}
_CENTER = {"kind": "center", "weight": 0.01}
"""Weight of the center loss: enough to pull, too little to collapse what softmax spreads."""

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


def objective_axis(config: Config) -> Axis:
    """Every preset, trained for the same total number of epochs as the config's own phases."""
    epochs = sum(phase.epochs for phase in config.reid_section.phases)
    overrides: dict[str, tuple[str, ...]] = {}
    for name, preset in PRESETS.items():
        part = -(-epochs // len(preset))
        phases = [{"epochs": part, "objectives": objectives} for objectives in preset]
        overrides[name] = (f"reid.phases={json.dumps(phases)}",)
    return Axis("objective", tuple(PRESETS), overrides)


def shared_overrides(config: Config) -> tuple[str, ...]:
    """Overrides that let one store serve all members: unlabelled people, and some in each batch."""
    unlabelled = config.reid_section.unlabelled_per_batch or config.reid_section.identities_per_batch
    return ("features.boxes=all", f"reid.unlabelled_per_batch={unlabelled}")
