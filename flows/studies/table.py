"""The outcome of a sweep as tables: one row per member, and one per group that differs in seed only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from flows.studies.schedule import MemberOutcome

MEASURES = ("mAP", "rank1", "mAP_untrained", "detection_ap50")
"""Metrics of a member's first evaluation."""
ON_EACH_DATASET = ("mAP", "detection_ap50")
"""Shown per dataset if there are several: the cross-dataset table."""
VALIDATION = re.compile(r"validation/(?:(.*)/)?coco_ap50")


def member_table(outcomes: Sequence[MemberOutcome]) -> pd.DataFrame:
    """Settings, metrics, seconds of the re-ID stage and error of each member, best mAP first."""
    rows = []
    for outcome in outcomes:
        reid = outcome.artifacts.get("reid")
        metrics = {name: artifact.manifest.metrics for name, artifact in outcome.artifacts.items()}
        rows.append(
            {
                **outcome.member.settings,
                **measures(metrics),
                "reid_seconds": np.nan if reid is None else reid.manifest.seconds,
                "error": outcome.failure and outcome.failure.message,
            }
        )
    return pd.DataFrame(rows).sort_values("mAP", ascending=False, na_position="last", ignore_index=True)


def measures(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """A member's metrics, from the metrics of its stages by name.

    Metrics of the first evaluation keep their names. With several datasets, or if detector training measures
    AP on validation views, each dataset's metrics are added, such as `detection_ap50 on prw`.
    """
    evaluations = {
        name.partition(":")[2]: of for name, of in metrics.items() if name.partition(":")[0] == "evaluation"
    }
    first = next(iter(evaluations.values()), {})
    found = {name: first.get(name, np.nan) for name in MEASURES}
    if len(evaluations) > 1:
        for dataset, of in evaluations.items():
            found |= {f"{name} on {dataset}": of.get(name, np.nan) for name in ON_EACH_DATASET}
    for name, value in metrics.get("detector", {}).items():
        if match := VALIDATION.fullmatch(name):
            found[f"validation AP50 on {match[1]}" if match[1] else "validation AP50"] = value
    return found


def group_table(members: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds, sorted by mean mAP.

    Members that agree in all settings except those called `seed` form a group. Deviations are of the sample
    (n - 1), NaN for a single member. Failed members are counted, but not averaged.
    """
    kept = [name for name in settings if name.rpartition(".")[2] != "seed"]
    groups = members.groupby(kept, sort=False) if kept else [((), members)]
    measured = [name for name in members if name not in (*settings, "reid_seconds", "error")]
    rows = []
    for values, group in groups:
        row = dict(zip(kept, values, strict=True))
        row |= {"members": len(group), "failed": int(group["error"].notna().sum())}
        for name in measured:
            row |= {f"{name}_mean": group[name].mean(), f"{name}_std": group[name].std()}
        row["reid_seconds"] = group["reid_seconds"].mean()
        rows.append(row)
    return pd.DataFrame(rows).sort_values("mAP_mean", ascending=False, na_position="last", ignore_index=True)
